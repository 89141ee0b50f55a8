"""Fit a scorer to a collection of an index, keep it there, and score the index by it."""

import hashlib
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas
from rsir_core.arrays import Floats
from rsir_core.errors import LabelError, ReadOnlyError, StorageError, TableError
from rsir_core.index.diff import semi
from rsir_core.index.embedding_files import by_file, stored_keys, stored_rows
from rsir_core.index.index import Index
from rsir_core.index.labels import is_refusal, read_labels
from rsir_core.index.layout import KEY, scorer_uri
from rsir_core.learning.scorer import LabelledEmbeddings, Scorer, Separation, fit_scorer
from rsir_core.storage.filesystem import get_file, put_file

BACKGROUND: Final = 4096  # images of the archive whose deviations count
MAX_LABELS: Final = 20_000  # of which a scorer is fitted: 100 MB of embeddings of 1,280
PART: Final = 1_000_000  # keys that are held at once
CELLS: Final = 10  # along the longer side of the ground on which labelled images lie


def learn(index: Index, collection: str, positive: str) -> Scorer:
    """Fit a scorer to the labels that a collection has now, and keep it with the collection in place of an earlier one.

    Args:
        index: the index.
        collection: name.
        positive: label of the images to find; those of all other labels are not.

    Raises:
        LabelError: too few labels, or too many.
        ReadOnlyError: the index may not be written to.
        StorageError: the store fails.
        TableError: an embedding is missing.
    """
    labels = read_labels(index, collection)
    if positive not in labels[schemas.LABEL].to_pylist():
        raise LabelError(f"{collection} has no image labelled {positive!r}; label some, and some that are not")
    if len(labels) > MAX_LABELS:
        raise LabelError(f"{collection} has {len(labels)} labels; a scorer is fitted to up to {MAX_LABELS}")
    columns = [*KEY, schemas.BUNDLE, schemas.BBOX]
    features = index.features(columns=columns)
    rows = features.filter(pc.is_in(features[schemas.IMAGE_ID], labels[schemas.IMAGE_ID].combine_chunks()))
    if not len(rows):
        raise LabelError(f"no labelled image of {collection} is in the index any more; label some that are")
    kept = labels.take(pc.index_in(rows[schemas.IMAGE_ID], labels[schemas.IMAGE_ID].combine_chunks()))
    is_positive = np.asarray(pc.equal(kept[schemas.LABEL], positive))
    labelled = LabelledEmbeddings(index.embeddings(rows), is_positive, *_groups(rows))
    some = features.take(np.linspace(0, len(features) - 1, min(BACKGROUND, len(features))).astype(np.int64))
    scorer = fit_scorer(labelled, index.embeddings(some), positive, rows[schemas.BUNDLE][0].as_py())
    uri = _uri(index, collection)
    try:
        put_file(uri, scorer.to_bytes())
    except StorageError as error:
        if is_refusal(error):
            raise ReadOnlyError(f"the scorer cannot be kept: {error}") from error
        raise
    return scorer


def read_scorer(index: Index, collection: str) -> Scorer | None:
    """Read the scorer that is kept with a collection; None: nobody has fitted one.

    Raises:
        TableError: it is damaged, or of another format.
    """
    uri = _uri(index, collection)
    try:
        return Scorer.from_bytes(get_file(uri))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise TableError(f"{uri} is damaged ({error}); learn again from the labels of {collection!r}") from error


def score_index(index: Index, version: int, scorer: Scorer) -> Iterator[tuple[pa.Table, Floats]]:
    """Score all images of a version, some thousands at a time; yields their rows (`image_id`) and probabilities.

    Reads the stored embeddings, and holds those of one piece: 20 MB of 1,280 dimensions.

    Raises:
        LabelError: the scorer is of another model bundle.
    """
    keys = index.features(version, [*KEY, schemas.BUNDLE])
    if len(keys) and keys[schemas.BUNDLE][0].as_py() != scorer.bundle:
        raise LabelError("the index was described anew by another model since; learn again from the labels")
    stored = semi(stored_keys(index), keys.select(KEY))
    for part in by_file(stored, PART):
        for piece in stored_rows(index, part, [schemas.IMAGE_ID, schemas.EMBEDDING]):
            yield piece.select([schemas.IMAGE_ID]), scorer.score(schemas.to_matrix(piece[schemas.EMBEDDING]))


def _uri(index: Index, collection: str) -> str:
    return scorer_uri(index.uri, hashlib.sha256(collection.encode()).hexdigest()[:32])


def _groups(rows: pa.Table) -> tuple[npt.NDArray[np.int64], Separation]:
    """Number what folds may not share: cells of a grid where all images have a place, else their scenes."""
    boxes = rows[schemas.BBOX].to_pylist()
    if all(box is not None for box in boxes):
        centres = np.array([(_middle(box["xmin"], box["xmax"]), (box["ymin"] + box["ymax"]) / 2) for box in boxes])
        if np.ptp(centres[:, 0]) > 180:  # degrees: they lie on both sides of ±180°
            centres[:, 0] += 360 * (centres[:, 0] < 0)
        size = max(float(np.ptp(centres, axis=0).max()) / CELLS, 1e-9)
        cells = np.floor((centres - centres.min(axis=0)) / size).astype(np.int64)
        return cells[:, 0] * (CELLS + 1) + cells[:, 1], "cells"
    scenes = [image_id.partition("#")[0] for image_id in rows[schemas.IMAGE_ID].to_pylist()]
    return np.unique(scenes, return_inverse=True)[1].astype(np.int64), "scenes"


def _middle(west: float, east: float) -> float:
    """Return the middle of a span of longitudes, which crosses ±180° if its west lies east of its east."""
    return (west + east + 360 * (west > east)) / 2
