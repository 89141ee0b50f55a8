"""Answer queries from the rows of a version or a share of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas
from rsir_core.arrays import Floats, Mask
from rsir_core.errors import QueryError
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.index.index import Index
from rsir_core.index.no_match import NEIGHBOURS
from rsir_core.learning.scorer import Scorer
from rsir_core.models.regions import Box, DetectedObject, Region
from rsir_core.retrieval.answers import ImagesPage, Match, RowsSummary
from rsir_core.retrieval.density import CellCounts, count_cells
from rsir_core.retrieval.object_partition import ObjectPartition, best_rows
from rsir_core.retrieval.partition import SCHEMA, Partition
from rsir_core.retrieval.query import (
    Descriptor,
    ImageName,
    NearRow,
    Neighbour,
    Query,
    Ranked,
    Ranking,
    SearchedRegions,
    average,
    without_own,
)
from rsir_core.retrieval.ranked_rows import rank_rows, take_rows
from rsir_core.retrieval.scored_rows import BINS, RowScores, ScoredPage, ScoredQuery, in_order
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.distance import ROUNDING
from rsir_core.search.exact import Hits
from rsir_core.search.filters import EVERYTHING, Filter, columns_to_ask

# Rows within rounding of each other, as of open sea, among which a query's own is looked for.
INDISTINGUISHABLE_ROWS: Final = 50
IMAGES: Final = pa.schema([SCHEMA.field(name) for name in (schemas.IMAGE_ID, schemas.CLASS)])

Allowed = Mask | None  # which rows may be ranked; None: all


class PartitionSearch:
    """Answer queries from rows in memory.

    Args:
        served: what they are the rows of.
        part: which share of them.
        parts: shares in all.
    """

    def __init__(self, served: ServedVersion, part: int = 0, parts: int = 1) -> None:
        self.served = served
        self._rows = Partition(Index(served.index), served.version, part, parts, served.neighbours > 0)
        has_objects = served.regions > 1
        self._objects = ObjectPartition(Index(served.index), served.version, part, parts) if has_objects else None
        self._last_objects: tuple[Filter, Allowed] = EVERYTHING, None  # those that passed the last filter
        self.scores = RowScores(Index(served.index), served.version, self._rows.table[schemas.IMAGE_ID])
        self.summary = self._summarise()
        self._cells: dict[float, CellCounts] = {}  # by their size, of which there is one for a version

    def resolve(self, query: Query) -> Match | None:
        """Find the row that a query names or equals up to rounding; None if it is not among these rows.

        An uploaded copy of an indexed image must rank itself first, so it takes the row's own descriptor, at distance
        exactly 0. A distance of rounding size would not suffice: weights within a class differ by orders of magnitude,
        so a more confident row could come first.
        """
        if isinstance(query, ImageName):
            place = self._rows.find(*query)
            return None if place is None else self._match(place, 0.0)
        ask = query.first_feature, query.class_probabilities
        nearest = self._rows.search_unaveraged(*ask, INDISTINGUISHABLE_ROWS, None)
        for place, distance in zip(nearest.rows.tolist(), nearest.distance.tolist(), strict=True):
            if distance > ROUNDING:
                return None
            found = self._match(place, distance)
            p = found.query.class_probabilities
            if np.allclose(query.class_probabilities, p, rtol=0, atol=ROUNDING):
                stored = found.query
                same = replace(
                    query, feature=stored.feature, class_probabilities=p, unaveraged=stored.unaveraged,
                    needs_average=False,
                )  # fmt: skip
                return found._replace(query=same)
        return None

    def as_indexed(self, query: Query) -> Descriptor | None:
        """Return what a query is ranked by: the row that it names or equals, else itself; None: it names no row.

        Where features are averaged, so is its own; where these are a share of the rows, do that by all of them.
        """
        match = self.resolve(query)
        if match is not None:
            return match.query
        return None if isinstance(query, ImageName) else self.averaged(query)

    def averaged(self, query: Descriptor) -> Descriptor:
        """Average a query's feature with its nearest rows, where that is yet to be done."""
        if not query.needs_average:
            return query
        return average(query, self.near_rows(query), self.served.neighbours)

    def near_rows(self, query: Descriptor) -> list[NearRow]:
        """Find the nearest rows that a query's feature is averaged with."""
        found = self._rows.search(
            query.feature, query.class_probabilities, self.served.neighbours, None, euclidean=True
        )
        ids = self._rows.take(found.rows, [schemas.IMAGE_ID])[schemas.IMAGE_ID].to_pylist()
        features = self._rows.feature[found.rows]
        return [NearRow(*row) for row in zip(found.distance.tolist(), ids, features, strict=True)]

    def passing(self, wanted: Filter) -> Allowed:
        """Find which rows pass a filter, which looks at each row; None: all do.

        Raises:
            QueryError: a filter that the index cannot apply.
        """
        return self._rows.passing(wanted, self.served.classes)

    def rank(self, query: Descriptor, ranking: Ranking, allowed: Allowed, likely: Allowed = None) -> Ranked:
        """Find the best `ranking.first` images for a query, best first, each by the best of its searched regions.

        A ranking that is still open is settled by these rows; where they are a share, settle it by all of them before.

        Args:
            query: what is asked.
            ranking: which regions are searched, by what, and how many are wanted.
            allowed: images whose key regions may be ranked, see `passing`; objects have to pass the ranking's filter.
            likely: images that may be found by any of their regions; None: all.
        """
        if ranking.is_open:
            ranking = ranking.settled(without_own(self.neighbours(query, ranking.regions), query.image_id))
        found, is_averaged = [], self.served.neighbours > 0
        key_allowed = allowed if likely is None else likely if allowed is None else allowed & likely
        if ranking.regions != "objects":
            found.append(rank_rows(self._rows, query, ranking, key_allowed, is_averaged))
        if ranking.regions != "key" and self._objects is not None:
            passing = self._passing_objects(ranking.filter)
            if likely is not None:
                of_likely = likely[self._objects.image]
                passing = of_likely if passing is None else passing & of_likely
            found.append(rank_rows(self._objects, query, ranking, passing, is_averaged))
        rows, distances = zip(*found, strict=True)
        best, nearest = best_rows(rows, ranking.ranked_by, ranking.first), min(distances)
        neighbours: list[Neighbour] = []
        if ranking.far_from <= nearest < np.inf:
            ask = query.first_feature, query.class_probabilities
            neighbours = _neighbours(self._rows, query, self._rows.search_unaveraged(*ask, NEIGHBOURS, key_allowed))
        return Ranked(query, best, nearest, ranking.ranked_by, tuple(neighbours), ranking.least_weight)

    def _passing_objects(self, wanted: Filter) -> Allowed:
        """Find which objects pass a filter; those of the last one are kept, as all queries of a job have the same."""
        last, allowed = self._last_objects
        if last != wanted and self._objects is not None:
            allowed = self._objects.passing(wanted, self.served.classes)
            self._last_objects = wanted, allowed
        return allowed

    def neighbours(self, query: Descriptor, regions: SearchedRegions = "key") -> list[Neighbour]:
        """Find the rows nearest to a query, whatever a filter takes; its own may be among them, see `without_own`."""
        found: list[Neighbour] = []
        if regions != "objects":
            found += _nearest(self._rows, query, NEIGHBOURS + 1)
        if regions != "key" and self._objects is not None:  # an object is not sure because its own image shows it
            near = _nearest(self._objects, query, NEIGHBOURS + self.served.regions)
            found += [one for one in near if one.image_id != query.image_id]
        return found

    def rows_of(self, image_ids: Sequence[str]) -> pa.Table:
        """Return the rows of those images that are among these rows, in that order: `ROW_COLUMNS`, `PROBABILITY`."""
        places = [self._rows.find(schemas.IMAGE_ID, image_id) for image_id in image_ids]
        return take_rows(self._rows, np.array([place for place in places if place is not None], np.int64))

    def scored(self, wanted: ScoredQuery) -> ScoredPage:
        """Find the first rows by what a scorer gives them; see `ScoredQuery`."""
        scores = self.scores.of(wanted.scorer)
        places = [self._rows.find(schemas.IMAGE_ID, image_id) for image_id in wanted.left_out]
        left_out = np.array([place for place in places if place is not None], np.int64)
        found, total = in_order(scores, wanted, left_out, self._rows.table[schemas.IMAGE_ID])
        counts = np.histogram(scores, BINS, (0, 1))[0].tolist()
        rows = take_rows(self._rows, found).append_column(schemas.RESULTS.field(schemas.SCORE), [scores[found]])
        return ScoredPage(counts, total, rows)

    def scores_of(self, scorer: Scorer, image_ids: Sequence[str]) -> Floats:
        """Return what a scorer gives to images (n,), which must be among these rows."""
        places = [self._rows.find(schemas.IMAGE_ID, image_id) for image_id in image_ids]
        return self.scores.of(scorer)[np.array(places, np.int64)]

    def images(self, contains: str, of_class: str | None, first: int) -> ImagesPage:
        """List the first images by id whose id contains a text (whatever its case), of one class or of all.

        Raises:
            QueryError: the index does not know the class.
        """
        if of_class is not None and of_class not in (known := self.served.classes):
            are = f"known are {', '.join(known)}" if known else "this index has no classes"
            raise QueryError(f"class: {of_class} unknown; {are}", "unknown")
        found = self._rows.table.select(IMAGES.names).append_column("row", [np.arange(len(self._rows))])
        if of_class is not None:
            found = found.filter(pc.equal(found[schemas.CLASS], of_class))
        if contains:
            found = found.filter(pc.match_substring(found[schemas.IMAGE_ID], contains, ignore_case=True))
        rows = np.empty(0, np.int64)
        if len(found):  # of none, Arrow before 26 cannot select
            best = pc.select_k_unstable(found, min(first, len(found)), [(schemas.IMAGE_ID, "ascending")])
            rows = found["row"].to_numpy()[best.to_numpy()]
        images = self._rows.take(rows, IMAGES.names)
        return ImagesPage(len(found), images)

    def cells(self, degrees: float) -> CellCounts:
        """Count footprints in cells of so many degrees; computed once."""
        if degrees not in self._cells:
            self._cells = {degrees: count_cells(self._rows.table[schemas.BBOX], degrees)}
        return self._cells[degrees]

    def probe(self) -> None:
        """Run a tiny query, if there is a row; raises where it fails."""
        if len(self._rows):
            self.rank(self._match(0, 0.0).query, Ranking(1), None)

    def _match(self, place: int, distance: float) -> Match:
        (row,) = self._rows.take(np.array([place])).to_pylist()
        descriptor = Descriptor(
            row[schemas.IMAGE_ID], row[schemas.URI], self._rows.feature[place],
            np.array(row[schemas.CLASS_PROBABILITIES], np.float32), Region(**row[schemas.REGION]),
            _stored_objects(row), row[schemas.HEIGHT], row[schemas.WIDTH], row[schemas.NOTES],
            self._rows.unaveraged[place] if self.served.neighbours else None,
        )  # fmt: skip
        return Match(distance, row[schemas.IMAGE_ID], descriptor)

    def _summarise(self) -> RowsSummary:
        ranges, table = self._rows.clusters.ranges, self._rows.table
        counted = table[schemas.CLASS].value_counts().to_pylist() if self.served.classes else []
        ends = np.iinfo(np.int64)
        low, high = ranges.time[:, 0].min(initial=ends.max), ranges.time[:, 1].max(initial=ends.min)
        placed = ranges.bbox[np.isfinite(ranges.bbox).all(axis=1)]
        edges = [*placed[:, :2].min(axis=0).tolist(), *placed[:, 2:].max(axis=0).tolist()] if len(placed) else None
        return RowsSummary(
            {found["values"]: found["counts"] for found in counted},
            columns_to_ask(table.schema),
            (_time(low), _time(high)) if low <= high else None,
            BoundingBox(*edges) if edges else None,
        )


def _time(microseconds: np.int64) -> datetime:
    time: datetime = pa.scalar(int(microseconds), schemas.UTC).as_py()
    return time


def _stored_objects(row: dict[str, Any]) -> tuple[DetectedObject, ...]:
    if row[schemas.OBJECT_CLASS] is None:
        return ()
    return (DetectedObject(Box(**row[schemas.OBJECT_BOX]), row[schemas.OBJECT_SCORE], row[schemas.OBJECT_CLASS]),)


def _nearest(part: Partition, query: Descriptor, k: int) -> list[Neighbour]:
    hits = part.search(query.feature, query.class_probabilities, k, None, euclidean=True)
    return _neighbours(part, query, hits)


def _neighbours(part: Partition, query: Descriptor, hits: Hits) -> list[Neighbour]:
    rows = part.take(hits.rows, [schemas.IMAGE_ID, schemas.CLASS_PROBABILITIES])
    p = schemas.to_matrix(rows[schemas.CLASS_PROBABILITIES])
    of_its_class = p[:, query.class_probabilities.argmax()] if p.shape[1] else np.zeros(len(p))
    columns = hits.distance.tolist(), rows[schemas.IMAGE_ID].to_pylist(), of_its_class.tolist()
    return [Neighbour(*row) for row in zip(*columns, strict=True)]
