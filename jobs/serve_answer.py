"""From what a query is ranked by to its answer: the rows of an edition, ranked, each with the reason for its rank."""

import base64
import bisect
from collections import Counter
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.serve_messages import AnswerJson, ImagesJson, ObjectJson, QueryJson, RegionJson, ResultJson, RowJson
from jobs.serve_query import Descriptor, Edition
from rsir_core import rows
from rsir_core.detector import DetectedObject
from rsir_core.errors import QueryError
from rsir_core.regions import Box, Region
from rsir_core.search import Hits, Searcher
from rsir_core.table import Index

# The columns of `RowJson`.
_ROW = [rows.IMAGE_ID, rows.URI, rows.CLASS, rows.REGION, rows.OBJECT_CLASS, rows.OBJECT_SCORE, rows.OBJECT_BOX]
_ROW += [rows.HEIGHT, rows.WIDTH]


# How far, at most, embeddings of unit length move where each entry falls on the other side of a float16 rounding, as
# happens between batches of different sizes.
ROUNDING: Final = 2.0**-10


class Answerer:
    """All rows of an edition in memory."""

    def __init__(self, edition: Edition) -> None:
        self.edition = edition
        self._rows = Index(edition.index).features(edition.version).combine_chunks()
        self._feature = rows.to_matrix(self._rows[rows.FEATURE])
        self._probabilities = rows.to_matrix(self._rows[rows.CLASS_PROBABILITIES])
        self._ids = self._rows[rows.IMAGE_ID].combine_chunks()  # sorted
        self._searcher = Searcher(self._ids.to_pylist(), self._feature, self._probabilities)

    def stored(self, image_id: str | None = None, uri: str | None = None) -> Descriptor:
        """The descriptor of an indexed image, by its id or else by its URI.

        Raises:
            QueryError: 404, it is not in the index.
        """
        if image_id is not None:
            i, asked = self._find(image_id), f"image_id {image_id!r}"
        else:
            i, asked = pc.index(self._rows[rows.URI], uri).as_py(), f"uri {uri!r}"
        if i < 0:
            raise QueryError(f"{asked} is not in the index; upload the image, or name one that is", 404)
        row = self._rows.slice(i, 1).drop_columns([rows.FEATURE, rows.CLASS_PROBABILITIES]).to_pylist()[0]
        return Descriptor(
            row[rows.IMAGE_ID], row[rows.URI], self._feature[i], self._probabilities[i], Region(**row[rows.REGION]),
            _stored_object(row), row[rows.HEIGHT], row[rows.WIDTH], row[rows.NOTES],
        )  # fmt: skip

    def answer(self, query: Descriptor, k: int, classes: list[str] | None = None) -> AnswerJson:
        """Rank the rows, or only those of some classes, against a query.

        Raises:
            QueryError: 422, a class that the index does not know.
        """
        allowed = None if classes is None else self._of_classes(classes)
        query = self._recognised(query)
        hits = self._searcher.search(query.feature, query.class_probabilities, k, allowed)
        return {"version": self.edition.version, "query": self._query(query), "results": self._results(hits)}

    def images(self, contains: str, of_class: str | None, offset: int, limit: int) -> ImagesJson:
        """A page of the images, by id, whose id contains a text (whatever its case), of one class or of all.

        Raises:
            QueryError: 422, a class that the index does not know.
        """
        found = self._rows.select([rows.IMAGE_ID, rows.CLASS])
        if of_class is not None:
            found = found.filter(pa.array(self._of_classes([of_class])))
        if contains:
            found = found.filter(pc.match_substring(found[rows.IMAGE_ID], contains, ignore_case=True))
        return {"total": len(found), "images": found.slice(offset, limit).to_pylist()}

    def class_counts(self) -> dict[str, int]:
        """How many rows each class of the bundle has."""
        counts = Counter(self._rows[rows.CLASS].to_pylist())
        return {name: counts[name] for name in self.edition.classes}

    def probe(self) -> None:
        """Run a tiny query; raises where it fails."""
        self._searcher.search(self._feature[0], self._probabilities[0], 1)

    def _recognised(self, query: Descriptor) -> Descriptor:
        """The query, with the descriptor of the row that it is, where it is one up to rounding.

        An indexed image that is uploaded must find itself first. A distance of rounding's size, not of 0, would not do:
        the weights of rows of one class differ by more powers of ten, and a surer row would come before it.
        """
        nearest = self._searcher.search(query.feature, query.class_probabilities, 1, plain=True)
        i = int(nearest.rows[0])
        if nearest.distance[0] > ROUNDING or not np.allclose(
            query.class_probabilities, self._probabilities[i], rtol=0, atol=ROUNDING
        ):
            return query
        return replace(query, feature=self._feature[i], class_probabilities=self._probabilities[i])

    def _find(self, image_id: str) -> int:
        i = bisect.bisect_left(range(len(self._ids)), image_id, key=lambda row: self._ids[row].as_py())
        return i if i < len(self._ids) and self._ids[i].as_py() == image_id else -1

    def _of_classes(self, classes: list[str]) -> npt.NDArray[np.bool_]:
        if unknown := sorted(set(classes) - set(self.edition.classes)):
            raise QueryError(f"classes: {', '.join(unknown)} unknown; known are {', '.join(self.edition.classes)}")
        mask: npt.NDArray[np.bool_] = np.asarray(pc.is_in(self._rows[rows.CLASS], pa.array(classes)))
        return mask

    def _query(self, query: Descriptor) -> QueryJson:
        names = self.edition.classes
        top = int(query.class_probabilities.argmax())
        said: QueryJson = {
            "image_id": query.image_id,
            "uri": query.uri,
            "class": names[top],
            "probability": float(query.class_probabilities[top]),
            "region": _region(query.region),
            "object": _object(query.object),
            "height": query.height,
            "width": query.width,
            "notes": query.notes,
            "class_probabilities": dict(zip(names, query.class_probabilities.tolist(), strict=True)),
            "feature": query.feature.tolist(),
        }
        if query.preview:
            said["preview"] = "data:image/jpeg;base64," + base64.b64encode(query.preview).decode()
        return said

    def _results(self, hits: Hits) -> list[ResultJson]:
        found: list[RowJson] = self._rows.select(_ROW).take(hits.rows).to_pylist()
        probability = self._probabilities[hits.rows].max(axis=1)
        return [
            {
                **row,
                "rank": i + 1,
                "weighted_distance": float(hits.weighted_distance[i]),
                "distance": float(hits.distance[i]),
                "query_weight": float(hits.query_weight[i]),
                "candidate_weight": float(hits.candidate_weight[i]),
                "probability": float(probability[i]),
            }
            for i, row in enumerate(found)
        ]


def _region(region: Region) -> RegionJson:
    return {"x": region.x, "y": region.y, "width": region.width, "height": region.height}


def _object(found: DetectedObject | None) -> ObjectJson | None:
    if found is None:
        return None
    x0, y0, x1, y1 = (float(edge) for edge in found.box)
    return {"class": found.name, "score": float(found.score), "box": {"x0": x0, "y0": y0, "x1": x1, "y1": y1}}


def _stored_object(row: dict[str, Any]) -> DetectedObject | None:
    if row[rows.OBJECT_CLASS] is None:
        return None
    return DetectedObject(Box(**row[rows.OBJECT_BOX]), row[rows.OBJECT_SCORE], row[rows.OBJECT_CLASS])
