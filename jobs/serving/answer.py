"""What a searcher answers from the rows of an edition, or from its share of them."""

from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from shapely.geometry import mapping

from jobs.serving.messages import ROW, BoundingBoxJson, ImagesJson
from jobs.serving.query import Descriptor, Ranking, ServedVersion
from rsir_core import schemas
from rsir_core.index.index import Index
from rsir_core.models.detector import DetectedObject
from rsir_core.models.regions import Box, Region
from rsir_core.retrieval.near_duplicates import NEAR, ROUNDING
from rsir_core.retrieval.partition import Partition
from rsir_core.search.exact import Hits
from rsir_core.search.filters import columns_to_ask

ALIKE: Final = 50  # rows within rounding of each other, as of open sea, among which a query's own is looked for
FACTORS: Final = ("weighted_distance", "distance", "query_weight", "candidate_weight")

Allowed = npt.NDArray[np.bool_] | None  # which rows of an answerer may be ranked; None: all


class Ranked(NamedTuple):
    """Rows, best first. They are encoded where they lie, so that what puts shares together need not look into them."""

    keys: list[tuple[float, str]]  # what they are ordered by: a distance, then the image id
    encoded: list[bytes]  # each row as JSON, without its rank
    nearest: float  # distance alone of the row that it is smallest of; infinite: none was there to be ranked


class Recognised(NamedTuple):
    """A query that is a row up to rounding."""

    distance: float  # between them, plain
    image_id: str
    query: Descriptor  # with the row's descriptor


class Holdings(NamedTuple):
    """Summarise the rows that a searcher holds."""

    classes: dict[str, int]  # images of each that there is
    columns: list[str]  # that a predicate can be about
    times: tuple[str, str] | None  # first and last
    bounds: BoundingBoxJson | None  # of all footprints


class Answerer:
    """Rows in memory.

    Args:
        edition: what is served.
        part: of the rows, which share.
        parts: shares in all.
    """

    def __init__(self, edition: ServedVersion, part: int = 0, parts: int = 1) -> None:
        self.edition = edition
        self._rows = Partition(Index(edition.index), edition.version, part, parts)
        self._held = self._what_is_held()

    def stored(self, image_ids: list[str], uris: list[str]) -> dict[str, Descriptor]:
        """Find the descriptors of those of the images, by id or URI, that are in this part of the rows."""
        asked = [(schemas.IMAGE_ID, name) for name in image_ids] + [(schemas.URI, name) for name in uris]
        found = {name: self._rows.find(column, name) for column, name in asked}
        return {name: self._descriptor(row) for name, row in found.items() if row is not None}

    def rank(self, query: Descriptor, ranking: Ranking) -> Ranked:
        """Rank the best rows for a query, best first; may raise as `passing`."""
        allowed = self.passing(ranking)
        hits = self.hits(query, ranking, allowed)
        return self._ranked(hits, self.nearest(query, ranking, allowed, hits), ranking.is_weighted(query))

    def passing(self, ranking: Ranking) -> Allowed:
        """Find which rows pass the ranking's filter, which looks at each row; None: all do.

        Raises:
            QueryError: 422, a filter that the index cannot apply.
        """
        return self._rows.passing(ranking.filter, self.edition.classes)

    def hits(self, query: Descriptor, ranking: Ranking, allowed: Allowed) -> Hits:
        """Find the best rows for a query among those allowed (see `passing`), best first, with their factors."""
        plain = not ranking.is_weighted(query)
        hits = self._rows.search(query.feature, query.class_probabilities, ranking.first, allowed, plain)
        if ranking.near_duplicates:
            hits = hits.take(np.flatnonzero(hits.distance <= NEAR))
        return hits

    def nearest(self, query: Descriptor, ranking: Ranking, allowed: Allowed, hits: Hits) -> float:
        """Find the smallest Euclidean distance among the rows that hits are the best of; infinite: no hits."""
        if len(hits.rows) and ranking.is_weighted(query):
            hits = self._rows.search(query.feature, query.class_probabilities, 1, allowed, plain=True)
        return float(hits.distance[0]) if len(hits.rows) else np.inf

    def take(self, hits: Hits) -> pa.Table:
        """Take the rows of hits, of schema `partition.SCHEMA`, in their order."""
        return self._rows.take(hits.rows)

    def rank_stored(self, image_id: str | None, uri: str | None, ranking: Ranking) -> tuple[Descriptor, Ranked] | None:
        """Find the descriptor of an image and rank its best rows; None: the image is not in this part."""
        found = self.stored([] if image_id is None else [image_id], [] if uri is None else [uri])
        return next(((query, self.rank(query, ranking)) for query in found.values()), None)

    def rank_described(self, query: Descriptor, ranking: Ranking) -> tuple[Descriptor, Ranked]:
        """Recognise an upload (see `recognise`) and rank its best rows."""
        found = self.recognise(query)
        query = query if found is None else found.query
        return query, self.rank(query, ranking)

    def recognise(self, query: Descriptor) -> Recognised | None:
        """Find the row that the query is, up to rounding; None: it is no row.

        An indexed image that is uploaded must find itself first. A distance of rounding's size, not of 0, would not do:
        the weights of rows of one class differ by more powers of ten, and a surer row would come before it.
        """
        nearest = self._rows.search(query.feature, query.class_probabilities, ALIKE, None, plain=True)
        for place, distance in zip(nearest.rows.tolist(), nearest.distance.tolist(), strict=True):
            if distance > ROUNDING:
                return None
            row = self._descriptor(place)
            if np.allclose(query.class_probabilities, row.class_probabilities, rtol=0, atol=ROUNDING):
                same = replace(query, feature=row.feature, class_probabilities=row.class_probabilities)
                return Recognised(distance, str(row.image_id), same)
        return None

    def images(self, contains: str, of_class: str | None, first: int) -> ImagesJson:
        """List the first images by id whose id contains a text (whatever its case), of one class or of all."""
        shown = [schemas.IMAGE_ID, schemas.CLASS]
        found = self._rows.table.select(shown).append_column("row", [np.arange(len(self._rows))])
        if of_class is not None:
            found = found.filter(pc.equal(found[schemas.CLASS], of_class))
        if contains:
            found = found.filter(pc.match_substring(found[schemas.IMAGE_ID], contains, ignore_case=True))
        best = pc.select_k_unstable(found, min(first, len(found)), [(schemas.IMAGE_ID, "ascending")])
        best = self._rows.take(found["row"].to_numpy()[best.to_numpy()])
        return {"total": len(found), "images": best.select(shown).to_pylist()}

    def held(self) -> Holdings:
        """Summarise the rows: classes, columns, times and bounds that can be asked for."""
        return self._held

    def _what_is_held(self) -> Holdings:
        ranges, table = self._rows.clusters.ranges, self._rows.table
        counted = table[schemas.CLASS].value_counts().to_pylist()
        classes = {found["values"]: found["counts"] for found in counted}
        times: tuple[str, str] | None = None
        bounds: BoundingBoxJson | None = None
        ends = np.iinfo(np.int64)
        low, high = ranges.time[:, 0].min(initial=ends.max), ranges.time[:, 1].max(initial=ends.min)
        if low <= high:
            times = _iso(low), _iso(high)
        if len(placed := ranges.bbox[np.isfinite(ranges.bbox).all(axis=1)]):
            edges = [*placed[:, :2].min(axis=0).tolist(), *placed[:, 2:].max(axis=0).tolist()]
            bounds = BoundingBoxJson(xmin=edges[0], ymin=edges[1], xmax=edges[2], ymax=edges[3])
        return Holdings(classes, columns_to_ask(table.schema), times, bounds)

    def probe(self) -> None:
        """Run a tiny query, if there is a row; raises where it fails."""
        if len(self._rows):
            self.rank(self._descriptor(0), Ranking(1))

    def _descriptor(self, row: int) -> Descriptor:
        (found,) = self._rows.take(np.array([row])).to_pylist()
        return Descriptor(
            found[schemas.IMAGE_ID], found[schemas.URI], self._rows.feature[row],
            np.array(found[schemas.CLASS_PROBABILITIES], np.float32), Region(**found[schemas.REGION]),
            _stored_objects(found), found[schemas.HEIGHT], found[schemas.WIDTH], found[schemas.NOTES],
        )  # fmt: skip

    def _ranked(self, hits: Hits, nearest: float, weighted: bool) -> Ranked:
        found = self._rows.take(hits.rows)
        shown = found.select(list(ROW)).to_pylist()
        probability = schemas.to_matrix(found[schemas.CLASS_PROBABILITIES]).max(axis=1, initial=0).tolist()
        factors = [getattr(hits, name).tolist() for name in FACTORS]
        encoded = []
        for i, row in enumerate(shown):
            why = {name: factor[i] for name, factor in zip(FACTORS, factors, strict=True)}
            row[schemas.GEOMETRY] = row[schemas.GEOMETRY] and mapping(shapely.from_wkb(row[schemas.GEOMETRY]))
            encoded.append(orjson.dumps({**row, **why, "probability": probability[i]}))
        key = hits.weighted_distance if weighted else hits.distance
        return Ranked(list(zip(key.tolist(), found[schemas.IMAGE_ID].to_pylist(), strict=True)), encoded, nearest)


def _iso(microseconds: np.int64) -> str:
    return str(pa.scalar(int(microseconds), schemas.UTC).as_py().isoformat())


def _stored_objects(row: dict[str, Any]) -> tuple[DetectedObject, ...]:
    if row[schemas.OBJECT_CLASS] is None:
        return ()
    return (DetectedObject(Box(**row[schemas.OBJECT_BOX]), row[schemas.OBJECT_SCORE], row[schemas.OBJECT_CLASS]),)
