"""Rows in memory with the probabilities that a scorer gives them, and the best or the most uncertain of them."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas
from rsir_core.arrays import Floats, Ints
from rsir_core.errors import TableError
from rsir_core.index.index import Index
from rsir_core.learning.scorer import Scorer

KEPT: Final = 4  # scorers whose probabilities stay in memory, 4 bytes per row each
BINS: Final = 20  # of the histogram of scores
Order = Literal["best", "uncertain"]


class ScoredQuery(NamedTuple):
    """Say which rows are wanted by their scores.

    Attributes:
        scorer: what gives them.
        order: best: highest first. uncertain: nearest to 0.5 first, which tell a scorer most where they are labelled.
        threshold: least score.
        first: number of rows to find.
        left_out: ids of images to leave out, such as those that are labelled already.
    """

    scorer: Scorer
    order: Order = "best"
    threshold: float = 0.0
    first: int = 20
    left_out: tuple[str, ...] = ()


class ScoredPage(NamedTuple):
    """Hold rows by their scores.

    Attributes:
        counts: rows in each of `BINS` equal intervals of scores, from 0 to 1.
        total: rows that score at least the threshold.
        rows: the first of them in the order that was asked for, with the column `score`.
    """

    counts: list[int]
    total: int
    rows: pa.Table


class RowScores:
    """Score the rows of a version, once per scorer; any number of threads may ask.

    Args:
        index: where the version is.
        version: of `features`.
        image_ids: of the rows.
    """

    def __init__(self, index: Index, version: int, image_ids: pa.ChunkedArray) -> None:
        self._index, self._version, self._ids = index, version, image_ids
        self._scores: OrderedDict[bytes, Floats] = OrderedDict()
        self._turn = threading.Lock()  # who asks for the same meanwhile waits, and reads nothing

    def of(self, scorer: Scorer) -> Floats:
        """Return the probability (n,) float32 of each row.

        Raises:
            LabelError: the scorer is of another model bundle.
            TableError: an embedding is missing.
        """
        key = scorer.to_bytes()
        with self._turn:
            if key not in self._scores:
                self._scores[key] = self._read(scorer)
                while len(self._scores) > KEPT:
                    self._scores.popitem(last=False)
            return self._scores[key]

    def _read(self, scorer: Scorer) -> Floats:
        from rsir_core.learning.archive_scores import score_index  # noqa: PLC0415 -- brings what lists archives

        pieces = list(score_index(self._index, self._version, scorer))
        scores = np.concatenate([np.empty(0, np.float32), *(found for _, found in pieces)])
        ids = pa.chunked_array([a for ids, _ in pieces for a in ids[schemas.IMAGE_ID].chunks], pa.string())
        places = pc.index_in(self._ids.cast(pa.large_string()), ids.cast(pa.large_string()).combine_chunks())
        if places.null_count:
            raise TableError(f"{self._index.uri} has no embedding of some images; index its archive again")
        found: Floats = scores[places.to_numpy()]
        return found


def in_order(scores: Floats, wanted: ScoredQuery, left_out: Ints, image_ids: pa.ChunkedArray) -> tuple[Ints, int]:
    """Find the first rows by score, and how many score at least the threshold; ties go to the smaller image id.

    Scores near 1 are often the same float32, so ties are common, and pages would overlap if others broke them.

    Args:
        scores: (n,).
        wanted: the order, the threshold and the number of rows.
        left_out: rows to leave out.
        image_ids: of the n rows.
    """
    allowed = scores >= wanted.threshold
    allowed[left_out] = False
    rows = np.flatnonzero(allowed)
    if not len(rows):  # of none, Arrow before 26 cannot select
        return rows, 0
    total, key = len(rows), sort_key(scores[rows], wanted.order)
    if wanted.first < total:
        near = key <= np.partition(key, wanted.first - 1)[wanted.first - 1]
        rows, key = rows[near], key[near]
    ids = [image_ids[row].as_py() for row in rows.tolist()]  # `take` would first put together all chunks
    keyed = pa.table([key, pa.array(ids, pa.string())], ["key", "id"])
    best = pc.select_k_unstable(keyed, min(wanted.first, len(rows)), [("key", "ascending"), ("id", "ascending")])
    return rows[best.to_numpy()], total


def sort_key(scores: Floats, order: Order) -> Floats:
    """Return what rows are sorted by, smallest first."""
    key: Floats = -scores if order == "best" else np.abs(scores - np.float32(0.5))
    return key


def merge_scored(parts: Sequence[ScoredPage], order: Order, offset: int, limit: int) -> ScoredPage:
    """Merge the first rows of all shares, and keep the page that is wanted; ties go to the smaller image id."""
    rows = pa.concat_tables(part.rows for part in parts)
    key = sort_key(rows[schemas.SCORE].to_numpy(), order)
    rows = rows.append_column("key", [key]).sort_by([("key", "ascending"), (schemas.IMAGE_ID, "ascending")])
    counts = np.sum([part.counts for part in parts], axis=0).tolist()
    return ScoredPage(counts, sum(part.total for part in parts), rows.drop_columns(["key"]).slice(offset, limit))
