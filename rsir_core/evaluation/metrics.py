"""Retrieval scores: mean average precision and MPEG-7 ANMRR, query block by query block.

The protocol: every row is a query once, ranked against all other rows; a row is relevant to a query of its own label;
ties go to the smaller image id. Queries without any relevant row have no score: they are left out and counted.
ANMRR after Manjunath, Ohm, Vasudevan and Yamada, "Color and texture descriptors", IEEE TCSVT 11(6), 2001, section II-C.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rsir_core.arrays import Doubles, Floats, Ints, Mask
from rsir_core.errors import LabelError
from rsir_core.search import distance as search

PRECISION_AT: Final = (1, 5, 10, 20, 50)
RECALL_LEVELS: Final = tuple(i / 10 for i in range(11))  # of the 11-point curve
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
    """Score each query; q queries have a relevant row."""

    queries: Ints  # (q,) positions of the scored queries among the rows
    average_precision: Doubles  # (q,)
    nmrr: Doubles  # (q,)
    precision: Doubles  # (q, len(PRECISION_AT))
    interpolated: Doubles  # (q, len(RECALL_LEVELS)), see `interpolate`
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

    def of(self, chosen: Mask) -> "Scores":
        """Select the scores of some of the queries by a (q,) mask."""
        part = (self.average_precision[chosen], self.nmrr[chosen], self.precision[chosen], self.interpolated[chosen])
        return Scores(self.queries[chosen], *part, 0)

    def where(self, chosen: Mask, others: "Scores") -> "Scores":
        """Keep the scores of the chosen queries, a (q,) mask, and take those of the others from another ranking."""

        def either(mine: Doubles, other: Doubles) -> Doubles:
            return np.where(chosen.reshape(-1, *[1] * (mine.ndim - 1)), mine, other)

        return Scores(
            self.queries,
            either(self.average_precision, others.average_precision),
            either(self.nmrr, others.nmrr),
            either(self.precision, others.precision),
            either(self.interpolated, others.interpolated),
            self.excluded,
        )

    def per_label(self, labels: Sequence[str]) -> dict[str, "Scores"]:
        """Split scores by label of the query, in the order of names; `labels` are those of all rows."""
        of_query = np.asarray(labels)[self.queries]
        return {str(label): self.of(of_query == label) for label in np.unique(of_query)}


def score_ranked(relevant: Mask, cutoff: Ints) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Score rankings.

    Args:
        relevant: (q, n); whether the row at rank 1, 2, … n is relevant; each query has one at least.
        cutoff: (q,); K of each query, see `mpeg7_cutoff`.

    Returns:
        Average precision (q,), NMRR (q,), precision at each of PRECISION_AT (q, len(PRECISION_AT)), and interpolated
        precision at each of RECALL_LEVELS (q, len(RECALL_LEVELS)).
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
    reached = np.zeros((len(count), count.max(initial=1)))  # precision at the 1st, 2nd, … relevant row
    reached[query, nth - 1] = nth / rank
    return average_precision, nmrr, precision, interpolate(reached, count)


def interpolate(reached: Doubles, count: Ints) -> Doubles:
    """Interpolate the 11-point curve: best precision at any recall of at least the level (Manning et al. 2008, 8.4).

    Args:
        reached: (q, max NG); precision at the 1st, 2nd, … relevant row, 0 after the last.
        count: (q,); NG, at least 1.

    Returns:
        (q, len(RECALL_LEVELS)).
    """
    best = np.maximum.accumulate(reached[:, ::-1], axis=1)[:, ::-1]  # from here on
    tenths = np.arange(len(RECALL_LEVELS))
    needed = np.maximum(-(-tenths * count[:, None] // 10), 1)  # relevant rows that make up each level, rounded up
    curve: Doubles = np.take_along_axis(best, needed - 1, axis=1)
    return curve


def mpeg7_cutoff(relevant_rows: Ints) -> Ints:
    """Compute K of each query, min(4·NG, 2·max NG): relevant rows ranked below count as at rank 1.25·K."""
    K: Ints = np.minimum(4 * relevant_rows, 2 * relevant_rows.max(initial=0))
    return K


def score_retrieval(
    feature: Floats, class_probabilities: Floats, labels: Sequence[str], weighted: bool = True, least_weight: float = 0
) -> Scores:
    """Rank all rows for each of them, itself left out, and score.

    O(n²·(K + log n)) time, O(PAIRS + n) memory beside the arguments.

    Args:
        feature: (n, K) float32; rows in the order of their image ids, which decides ties.
        class_probabilities: (n, C) float32.
        labels: (n,).
        weighted: rank by the weighted distance (paper eq. 8), else by the distance alone.
        least_weight: what each of the two weights is at least.

    Raises:
        LabelError: no two rows share a label.
    """
    label = np.unique(np.asarray(labels), return_inverse=True)[1]  # (n,)
    relevant_rows = np.bincount(label)[label] - 1  # NG: all of the label but the query
    queries = np.flatnonzero(relevant_rows)
    if not len(queries):
        raise LabelError(
            f"no two of the {len(label)} images share a label, so nothing is relevant to anything; "
            "check the folder names or the split file, and that classes have 2 images here at least"
        )
    cutoff = mpeg7_cutoff(relevant_rows)
    blocks = []
    for block, order, _ in ranked(queries, feature, class_probabilities if weighted else None, least_weight):
        relevant = label[block, None] == label
        relevant[np.arange(len(block)), block] = False
        blocks.append(score_ranked(np.take_along_axis(relevant, order, axis=1), cutoff[block]))
    average_precision, nmrr, precision, curve = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Scores(queries, average_precision, nmrr, precision, curve, len(label) - len(queries))


def top_confusion(feature: Floats, class_probabilities: Floats, labels: Sequence[str]) -> Ints:
    """Count how often each label fills the first NG ranks of each label's queries, by the weighted distance.

    NG is the query's count of relevant rows, so a perfect ranking fills the diagonal alone.

    Args:
        feature: (n, K) float32, as `score_retrieval` takes it.
        class_probabilities: (n, C) float32.
        labels: (n,), of L different values.

    Returns:
        (L, L); rows are the queries' labels, columns the found ones', both in the order of names.
    """
    names, label = np.unique(np.asarray(labels), return_inverse=True)
    relevant_rows = np.bincount(label)[label] - 1
    counts = np.zeros((len(names), len(names)), np.int64)
    for block, order, _ in ranked(np.flatnonzero(relevant_rows), feature, class_probabilities):
        first = np.arange(order.shape[1]) < relevant_rows[block, None]  # (b, n)
        query, place = np.nonzero(first)
        np.add.at(counts, (label[block[query]], label[order[query, place]]), 1)
    return counts


def ranked(
    queries: Ints, feature: Floats, class_probabilities: Floats | None, least_weight: float = 0
) -> Iterator[tuple[Ints, Ints, Doubles]]:
    """Yield blocks of queries (b,), the rows ranked for each (b, n), and the distances to the rows (b, n).

    Args:
        queries: (q,) positions among the rows.
        feature: (n, K) float32; rows in the order of their image ids, which decides ties.
        class_probabilities: (n, C) float32; None: rank by the distance alone.
        least_weight: what each of the two weights is at least.

    Ranks go from best to worst, with the query itself last. Distances are in the order of the rows; that of a query to
    itself is infinite.
    """
    size = max(1, PAIRS // len(feature))
    if class_probabilities is not None:
        complement, predicted = search.complements(class_probabilities), search.classes(class_probabilities)
    for start in range(0, len(queries), size):
        block = queries[start : start + size]
        distance = search.distances(feature[block], feature)  # (b, n)
        if class_probabilities is not None:
            weight = np.maximum(search.query_weights(complement[block], predicted), least_weight)
            weight *= np.maximum(search.candidate_weights(complement, predicted[block]), least_weight)
            distance *= weight  # in the search's order of factors, so that both round alike
        distance[np.arange(len(block)), block] = np.inf  # itself: after all others
        yield block, np.argsort(distance, axis=1, kind="stable"), distance
