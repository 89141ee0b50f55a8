"""Score retrieval over the rows of an opened index."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from rsir_core import schemas
from rsir_core.archive.file_names import NamedValues
from rsir_core.archive.labels import folder_label
from rsir_core.errors import LabelError
from rsir_core.evaluation.labelled_rows import label_rows, match
from rsir_core.evaluation.metrics import score_retrieval

COLUMNS: Final = [schemas.IMAGE_ID, schemas.URI, schemas.FEATURE, schemas.CLASS_PROBABILITIES]
Labels = Mapping[str, str] | str | os.PathLike[str] | None


@dataclass(frozen=True)
class RetrievalScores:
    """Score retrieval over labelled images; each is a query once, ranked against all others.

    Attributes:
        map: mean average precision, 0 to 1; higher is better.
        anmrr: MPEG-7's ANMRR, 0 to 1; lower is better.
        precision_at: share of images of the query's label among the first 1, 5, 10, 20 and 50.
        map_per_label: mean average precision of the queries of each label.
        queries: images that were scored.
        excluded: images without any other of their label.
    """

    map: float
    anmrr: float
    precision_at: dict[int, float]
    map_per_label: dict[str, float]
    queries: int
    excluded: int


def score(rows: pa.Table, labels: Labels, weighted: bool) -> RetrievalScores:
    """Score rows with the columns `COLUMNS`, by image id; see `SearchIndex.evaluate`."""
    rows, names = _labelled(rows, labels)
    feature, probabilities = (schemas.to_matrix(rows[name]) for name in COLUMNS[2:])
    scores = score_retrieval(feature, probabilities, names, weighted)
    per_label = {label: found.map for label, found in scores.per_label(names).items()}
    return RetrievalScores(
        scores.map, scores.anmrr, scores.precision_at, per_label, len(scores.queries), scores.excluded
    )


def _labelled(rows: pa.Table, labels: Labels) -> tuple[pa.Table, list[str]]:
    """Select the rows that have a label; returns them and their labels."""
    if labels is None:
        return rows, [folder_label(image_id) for image_id in rows[schemas.IMAGE_ID].to_pylist()]
    if not isinstance(labels, Mapping):
        chosen, names, _ = label_rows(rows, os.fspath(labels))
        return chosen, names
    uris, ids = ({name: i for i, name in enumerate(rows[column].to_pylist())} for column in COLUMNS[:2])
    known = NamedValues(uris | ids)
    places = {name: place for name in labels if (place := known.get(name)) is not None} or match(list(labels), rows)
    if unknown := [name for name in labels if name not in places]:
        raise LabelError(
            f"{len(unknown)} of {len(labels)} labels name no image of the index, such as {unknown[0]}; give its "
            "image ids or URIs"
        )
    pairs = sorted((place, labels[name]) for name, place in places.items())
    return rows.take([place for place, _ in pairs]), [label for _, label in pairs]
