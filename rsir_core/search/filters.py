"""Filter rows before ranking, by class, time, footprint and any column."""

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas
from rsir_core.arrays import Ints, Mask
from rsir_core.errors import QueryError
from rsir_core.geo.bounding_box import BoundingBox, arcs, meets
from rsir_core.geo.polygon import Corners, bounds_of, meet_polygon
from rsir_core.search.clusters import Clusters, Ranges
from rsir_core.search.filter_options import FilterOptions, Operator

# Rows between two spans up to which they are tested as one: to begin a span takes as long as to test so many.
GAP: Final = 100_000

_OPERATORS: Final[dict[Operator, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda column, values: column.isin(values),
    "not in": lambda column, values: ~column.isin(values),
}


@dataclass(frozen=True)
class Filter:
    """Hold the conditions that a row must meet; None and () are no condition, and a missing value meets none.

    Attributes:
        classes: its class is one of them.
        start: acquired then or later.
        end: acquired then or earlier.
        bbox: its footprint meets this one.
        polygon: its outline meets the polygon of these corners, longitude and latitude each.
        where: (column, operator, value) of any column of single values; a time is a datetime or ISO 8601.
    """

    classes: tuple[str, ...] | None = None
    start: datetime | None = None
    end: datetime | None = None
    bbox: BoundingBox | None = None
    where: tuple[tuple[str, Operator, Any], ...] = ()
    polygon: Corners | None = None

    @classmethod
    def of(cls, options: FilterOptions) -> Self:
        """Build the filter that options or a request ask for."""
        bbox = None if options.bbox is None else BoundingBox(*options.bbox)
        return cls(options.classes, options.start, options.end, bbox, options.where, options.polygon)

    def rows(self, table: pa.Table, clusters: Clusters, class_names: tuple[str, ...]) -> Mask | None:
        """Find which rows of a table pass, (n,) bool; None: all. Clusters that cannot have one are not looked at.

        Args:
            table: the rows, in the order of the clusters' runs.
            clusters: their runs.
            class_names: of the index.

        Raises:
            QueryError: a class or column that the index does not have, or a value that does not go with it.
        """
        test = self.expression(table.schema, class_names)
        if test is None:
            return None
        mask = np.zeros(len(table), np.bool_)
        spans = _spans(clusters.count, self._possible(clusters, class_names))
        for start, stop in spans or [(0, 0)]:  # of no row at least, to know whether it can be tested
            part = table.slice(start, stop - start)
            passed = _evaluate(part, test)
            if self.polygon is not None and passed.any():
                places = part.select([schemas.GEOMETRY, schemas.BBOX]).filter(pa.array(passed))
                passed[passed] = meet_polygon(self.polygon, places[schemas.GEOMETRY], places[schemas.BBOX])
            mask[start:stop] = passed
        return mask

    def expression(self, schema: pa.Schema, class_names: tuple[str, ...]) -> pc.Expression | None:
        """Build one expression of all conditions, but of a polygon only its bounds; None: there are none.

        Raises:
            QueryError: 422, see `rows`.
        """
        if self.classes is not None and not class_names:
            raise QueryError(f"classes: this index has no classes; leave out {', '.join(self.classes)}")
        if unknown := sorted(set(self.classes or ()) - set(class_names)):
            raise QueryError(f"classes: {', '.join(unknown)} unknown; known are {', '.join(class_names)}")
        for column, _, _ in self.where:
            if column not in (known := columns_to_ask(schema)):
                raise QueryError(f"where: no column {column!r}; there are {', '.join(known)}")
        tests = [] if self.classes is None else [pc.field(schemas.CLASS).isin(pa.array(self.classes, pa.string()))]
        if self.start is not None:
            tests.append(pc.field(schemas.TIME) >= pa.scalar(self.start, schemas.UTC))
        if self.end is not None:
            tests.append(pc.field(schemas.TIME) <= pa.scalar(self.end, schemas.UTC))
        edges = [pc.field(schemas.BBOX, name) for name in schemas.BBOX_FIELDS]
        tests += [meets(bounds, *edges) for bounds in self._bounds]
        tests += [_holds(schema.field(column), asked, value) for column, asked, value in self.where]
        return functools.reduce(operator.and_, tests) if tests else None

    def _possible(self, clusters: Clusters, class_names: tuple[str, ...]) -> Mask:
        """Find which clusters can have a row that passes, (m,) bool, by their ranges."""
        mask = np.ones(len(clusters.count), np.bool_)
        ranges: Ranges = clusters.ranges
        if self.classes is not None:
            mask &= np.isin(clusters.of_class, [class_names.index(name) for name in self.classes])
        if self.start is not None:
            mask &= ranges.time[:, 1] >= _microseconds(self.start)
        if self.end is not None:
            mask &= ranges.time[:, 0] <= _microseconds(self.end)
        west, south, east, north = ranges.bbox.T
        for bounds in self._bounds:
            mask &= (south <= bounds.north) & (north >= bounds.south)
            mask &= np.any([(west <= high) & (east >= low) for low, high in arcs(bounds)], axis=0)
        return mask

    @property
    def _bounds(self) -> list[BoundingBox]:
        """Bounding boxes that a footprint must meet."""
        return [*([self.bbox] if self.bbox else []), *([bounds_of(self.polygon)] if self.polygon else [])]


EVERYTHING: Final = Filter()


def columns_to_ask(schema: pa.Schema) -> list[str]:
    """List the columns that a predicate can be about: those of one value, and not of bytes."""
    return [field.name for field in schema if not (pa.types.is_nested(field.type) or pa.types.is_binary(field.type))]


def _holds(field: pa.Field, asked: Operator, value: Any) -> pc.Expression:
    """Build one predicate, on a column in the width that its values have, so that 0.1 is the same to `==` and `in`."""
    several = asked in ("in", "not in")
    if several != isinstance(value, (list, tuple)):
        raise QueryError(
            f"where: {field.name} {asked} takes {'a list' if several else 'one value'}, got {value!r:.100}"
        )
    values = [_value(field, one) for one in (value if several else [value])]
    column = pc.field(field.name)
    wide = pa.float64() if pa.types.is_floating(field.type) else field.type
    try:
        given = pa.array(values, wide if pa.types.is_timestamp(wide) or not values else None)
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise QueryError(f"where: {field.name} {asked} {value!r:.100} cannot be compared ({error})") from error
    return column.is_valid() & _OPERATORS[asked](column.cast(wide), given if several else given[0])


def _value(field: pa.Field, value: Any) -> Any:
    """Check that a value is of the kind of the column that it is compared with."""
    numbers = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    kinds: tuple[type, ...]
    kinds, words = ((int, float), "numbers") if numbers else ((str,), "texts")
    if pa.types.is_timestamp(field.type):
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError as error:
                raise QueryError(f"where: {field.name} {value!r:.100} is no ISO 8601 time") from error
        kinds, words = (datetime,), "times"
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise QueryError(f"where: {field.name} holds {words}; it cannot be compared with {value!r:.100}")
    return value


def _evaluate(table: pa.Table, test: pc.Expression) -> Mask:
    import pyarrow.dataset as ds  # noqa: PLC0415 -- brings pandas

    try:
        passed = ds.dataset(table).to_table(columns={"passed": test})["passed"]
    except (pa.ArrowException, OverflowError) as error:
        raise QueryError(f"where: a value does not go with its column ({error})") from error
    mask: Mask = np.asarray(passed.fill_null(False))
    return mask


def _microseconds(time: datetime) -> int:
    return int(pa.scalar(time, schemas.UTC).value)


def _spans(count: Ints, chosen: Mask) -> list[tuple[int, int]]:
    """Merge chosen runs to (start, stop) of rows; near neighbours, with what is between, as one."""
    ends = np.cumsum(count)
    starts, stops = (ends - count)[chosen], ends[chosen]
    far = np.flatnonzero(starts[1:] - stops[:-1] > GAP)
    firsts, lasts = np.append(0, far + 1), np.append(far, len(stops) - 1)
    return list(zip(starts[firsts].tolist(), stops[lasts].tolist(), strict=True)) if len(stops) else []
