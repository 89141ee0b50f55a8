"""Which rows are ranked: by class, time, footprint and any column, decided before ranking."""

import functools
import operator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rsir_core import rows
from rsir_core.clusters import Clusters, Ranges
from rsir_core.errors import QueryError
from rsir_core.footprint import Footprint

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
Mask = npt.NDArray[np.bool_]
EVERYWHERE: Final = (-180.0, 180.0)


@dataclass(frozen=True)
class Filter:
    """A row passes if all of these hold; None and () ask for nothing. A row without a value passes no test of it.

    Attributes:
        classes: its class is one of them.
        start: acquired then or later.
        end: acquired then or earlier.
        bbox: its footprint meets this one.
        where: (column, operator, value) of any column.
    """

    classes: tuple[str, ...] | None = None
    start: datetime | None = None
    end: datetime | None = None
    bbox: Footprint | None = None
    where: tuple[tuple[str, Operator, Any], ...] = ()

    def rows(self, table: pa.Table, clusters: Clusters, class_names: tuple[str, ...]) -> Mask | None:
        """Which rows of a table pass, (n,) bool; None: all. Rows of clusters that cannot have one are not looked at.

        Args:
            table: the rows, in the order of the clusters' runs.
            clusters: their runs.
            class_names: of the index.

        Raises:
            QueryError: 422, a class or column that the index does not have, or a value that does not go with it.
        """
        self._check(table.schema, class_names)
        test = self._test()
        if test is None:
            return None
        mask = np.zeros(len(table), np.bool_)
        for start, stop in _spans(clusters.count, self._possible(clusters, class_names)):
            mask[start:stop] = _evaluate(table.slice(start, stop - start), test)
        return mask

    def _check(self, schema: pa.Schema, class_names: tuple[str, ...]) -> None:
        if unknown := sorted(set(self.classes or ()) - set(class_names)):
            raise QueryError(f"classes: {', '.join(unknown)} unknown; known are {', '.join(class_names)}")
        for column, _, _ in self.where:
            if column not in (known := columns_to_ask(schema)):
                raise QueryError(f"where: no column {column!r}; there are {', '.join(known)}")

    def _test(self) -> pc.Expression | None:
        """All of it as one expression."""
        tests = [] if self.classes is None else [pc.field(rows.CLASS).isin(list(self.classes))]
        if self.start is not None:
            tests.append(pc.field(rows.TIME) >= pa.scalar(self.start, rows.UTC))
        if self.end is not None:
            tests.append(pc.field(rows.TIME) <= pa.scalar(self.end, rows.UTC))
        if self.bbox is not None:
            tests.append(_meets(self.bbox))
        if self.where:
            try:
                tests.append(pq.filters_to_expression([list(self.where)]))
            except (ValueError, TypeError, pa.ArrowException) as error:
                raise QueryError(f"where: {error}") from error
        return functools.reduce(operator.and_, tests) if tests else None

    def _possible(self, clusters: Clusters, class_names: tuple[str, ...]) -> Mask:
        """Which clusters can have a row that passes, (m,) bool, by their ranges."""
        mask = np.ones(len(clusters.count), np.bool_)
        ranges: Ranges = clusters.ranges
        if self.classes is not None:
            mask &= np.isin(clusters.of_class, [class_names.index(name) for name in self.classes])
        if self.start is not None:
            mask &= ranges.time[:, 1] >= _microseconds(self.start)
        if self.end is not None:
            mask &= ranges.time[:, 0] <= _microseconds(self.end)
        if self.bbox is not None:
            west, south, east, north = ranges.bbox.T
            mask &= (south <= self.bbox.north) & (north >= self.bbox.south)
            mask &= np.any([(west <= high) & (east >= low) for low, high in _longitudes(self.bbox)], axis=0)
        return mask


EVERYTHING: Final = Filter()


def columns_to_ask(schema: pa.Schema) -> list[str]:
    """The columns that a predicate can be about: those of one value."""
    return [field.name for field in schema if not pa.types.is_nested(field.type)]


def _evaluate(table: pa.Table, test: pc.Expression) -> Mask:
    try:
        passed = ds.dataset(table).to_table(columns={"passed": test})["passed"]
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise QueryError(f"where: a value does not go with its column ({error})") from error
    mask: Mask = np.asarray(passed.fill_null(False))
    return mask


def _meets(bbox: Footprint) -> pc.Expression:
    """Whether a row's footprint and this one have a point in common."""
    xmin, ymin, xmax, ymax = (pc.field(rows.BBOX, name) for name in rows.BBOX_FIELDS)
    longitudes = []
    for west, east in _longitudes(bbox):
        over, under = xmin <= east, xmax >= west
        longitudes.append((over & under) | ((xmin > xmax) & (over | under)))  # the latter: over the antimeridian
    return (ymin <= bbox.north) & (ymax >= bbox.south) & functools.reduce(operator.or_, longitudes)


def _longitudes(bbox: Footprint) -> list[tuple[float, float]]:
    """One span of longitudes, or the two on either side of the antimeridian."""
    low, high = EVERYWHERE
    return [(bbox.west, bbox.east)] if bbox.west <= bbox.east else [(bbox.west, high), (low, bbox.east)]


def _microseconds(time: datetime) -> int:
    return int(pa.scalar(time, rows.UTC).value)


def _spans(count: npt.NDArray[np.int64], chosen: Mask) -> list[tuple[int, int]]:
    """Runs that are chosen, as (start, stop) of rows; neighbours as one."""
    ends = np.cumsum(count)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    return [(int(ends[a - 1]) if a else 0, int(ends[b - 1])) for a, b in edges.reshape(-1, 2)]
