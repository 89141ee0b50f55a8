"""Retrieval scores: mean average precision and MPEG-7 ANMRR, query block by query block.

The protocol: every row is a query once, ranked against all other rows; a row is relevant to a query of its own label;
ties go to the smaller image id. Queries without any relevant row have no score: they are left out and counted.
ANMRR after Manjunath, Ohm, Vasudevan and Yamada, "Color and texture descriptors", IEEE TCSVT 11(6), 2001, section II-C.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rsir_core import search
from rsir_core.errors import LabelError
from rsir_core.search import Doubles, Floats, Ints

Relevance = npt.NDArray[np.bool_]

PRECISION_AT: Final = (1, 5, 10, 20, 50)
PAIRS: Final = 1 << 22  # query-row pairs ranked together, at about 50 bytes each


PROTOCOL: Final = {
    "queries": "every image once",
    "query_in_database": False,
    "database": "all other images",
    "relevant": "images of the query's label",
    "queries_without_relevant_images": "left out and counted",
    "map": "mean over queries of average precision over all relevant images",
    "anmrr_k": "min(4·NG, 2·max NG)",
    "anmrr_penalty": "1.25·K, for relevant images ranked below K",
    "ties": "smaller image id first",
}


@dataclass(frozen=True)
class Scores:
    """What each query scored; q queries have a relevant row."""

    queries: Ints  # (q,) positions of the scored queries among the rows
    average_precision: Doubles  # (q,)
    nmrr: Doubles  # (q,)
    precision: Doubles  # (q, len(PRECISION_AT))
    excluded: int  # queries without any relevant row

    @property
    def map(self) -> float:
        """Mean average precision, 0 to 1; higher is better."""
        return float(self.average_precision.mean())

    @property
    def anmrr(self) -> float:
        """Average normalised modified retrieval rank, 0 to 1; lower is better."""
        return float(self.nmrr.mean())

    @property
    def precision_at(self) -> dict[int, float]:
        """Mean share of relevant rows among the first k, by k."""
        return dict(zip(PRECISION_AT, self.precision.mean(axis=0).tolist(), strict=True))

    def of(self, chosen: Relevance) -> "Scores":
        """Of some of the queries only: a (q,) mask."""
        return Scores(
            self.queries[chosen], self.average_precision[chosen], self.nmrr[chosen], self.precision[chosen], 0
        )

    def per_label(self, labels: Sequence[str]) -> dict[str, "Scores"]:
        """By label of the query, in the order of names; `labels` are those of all rows."""
        of_query = np.asarray(labels)[self.queries]
        return {str(label): self.of(of_query == label) for label in np.unique(of_query)}


def score_ranked(relevant: Relevance, cutoff: Ints) -> tuple[Doubles, Doubles, Doubles]:
    """Score rankings.

    Args:
        relevant: (q, n); whether the row at rank 1, 2, … n is relevant; each query has one at least.
        cutoff: (q,); K of each query, see `mpeg7_cutoff`.

    Returns:
        Average precision (q,), NMRR (q,) and precision at each of PRECISION_AT (q, len(PRECISION_AT)).
    """
    count = relevant.sum(axis=1)  # NG
    query, place = np.nonzero(relevant)  # by query, then by rank
    rank = place + 1.0
    nth = np.arange(1, len(query) + 1) - (np.cumsum(count) - count)[query]  # 1st, 2nd, … relevant row of its query
    average_precision = np.bincount(query, nth / rank, len(count)) / count

    K = cutoff.astype(np.float64)
    modified = np.where(rank > K[query], 1.25 * K[query], rank)
    average_rank = np.bincount(query, modified, len(count)) / count  # AVR
    ideal = 0.5 * (1 + count)
    nmrr = (average_rank - ideal) / (1.25 * K - ideal)  # MRR over its largest value

    precision = np.stack([relevant[:, :k].sum(axis=1) / k for k in PRECISION_AT], axis=1)
    return average_precision, nmrr, precision


def mpeg7_cutoff(relevant_rows: Ints) -> Ints:
    """K of each query, min(4·NG, 2·max NG): relevant rows ranked below count as at rank 1.25·K."""
    K: Ints = np.minimum(4 * relevant_rows, 2 * relevant_rows.max(initial=0))
    return K


def score_retrieval(
    feature: Floats, class_probabilities: Floats, labels: Sequence[str], weighted: bool = True
) -> Scores:
    """Rank all rows for each of them, itself left out, and score.

    O(n²·(K + log n)) time, O(PAIRS + n) memory beside the arguments.

    Args:
        feature: (n, K) float32; rows in the order of their image ids, which decides ties.
        class_probabilities: (n, C) float32.
        labels: (n,).
        weighted: rank by the weighted distance (paper eq. 8), else by the distance alone.

    Raises:
        LabelError: no two rows share a label.
    """
    label = np.unique(np.asarray(labels), return_inverse=True)[1]  # (n,)
    relevant_rows = np.bincount(label)[label] - 1  # NG: all of the label but the query
    queries = np.flatnonzero(relevant_rows)
    if not len(queries):
        raise LabelError(
            f"no two of the {len(label)} images share a label, so nothing is relevant to anything; "
            "check the folder names or the split file"
        )
    cutoff = mpeg7_cutoff(relevant_rows)
    blocks = [
        score_ranked(relevant, cutoff[block])
        for block, relevant in _ranked_blocks(queries, feature, class_probabilities if weighted else None, label)
    ]
    average_precision, nmrr, precision = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Scores(queries, average_precision, nmrr, precision, len(label) - len(queries))


def _ranked_blocks(
    queries: Ints, feature: Floats, class_probabilities: Floats | None, label: Ints
) -> Iterator[tuple[Ints, Relevance]]:
    """Blocks of queries, each with the relevance of its ranked rows, (b,) and (b, n)."""
    size = max(1, PAIRS // len(label))
    if class_probabilities is not None:
        complement, predicted = search.complements(class_probabilities), search.classes(class_probabilities)
    for start in range(0, len(queries), size):
        block = queries[start : start + size]
        distance = search.distances(feature[block], feature)  # (b, n)
        if class_probabilities is not None:
            weight = search.query_weights(complement[block], predicted)
            weight *= search.candidate_weights(complement, predicted[block])
            distance *= weight
        relevant = label[block, None] == label
        itself = (np.arange(len(block)), block)
        distance[itself], relevant[itself] = np.inf, False  # after all others, where it counts for nothing
        order = np.argsort(distance, axis=1, kind="stable")
        yield block, np.take_along_axis(relevant, order, axis=1)
