"""The order that queries get unless they ask for another: weighted or not, as each one's nearest rows say."""

from collections.abc import Sequence

import numpy as np

from rsir_core.arrays import Floats, Mask
from rsir_core.evaluation.metrics import Scores, score_retrieval
from rsir_core.index.no_match import FITTING, NEIGHBOURS
from rsir_core.retrieval.query import LEAST_WEIGHT, Neighbour, Ranking
from rsir_core.search.distance import classes as classes_of
from rsir_core.search.exact import Searcher


def score_auto(
    feature: Floats,
    class_probabilities: Floats,
    labels: Sequence[str],
    plain: Scores,
    unaveraged: Floats | None = None,
) -> tuple[Scores, Mask]:
    """Score the order of `auto` for rows that are the whole index, and tell which queries (q,) it weights.

    Args:
        feature: (n, K), by image id.
        class_probabilities: (n, C).
        labels: (n,).
        plain: their scores by the distance alone.
        unaveraged: (n, K), features before they were averaged with their neighbours; None: they were not.
    """
    decisive = feature if unaveraged is None else unaveraged
    is_weighted = weighted_by_auto(decisive, class_probabilities)[plain.queries]
    weighted = score_retrieval(feature, class_probabilities, labels, least_weight=LEAST_WEIGHT)
    return weighted.where(is_weighted, plain), is_weighted


def weighted_by_auto(feature: Floats, class_probabilities: Floats) -> Mask:
    """Tell which rows `auto` weights, (n,) bool, where they are the whole index: see `Ranking.settled`."""
    ids = [f"{row:012}" for row in range(len(feature))]
    agrees, weighted = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
    if not class_probabilities.shape[1]:
        return weighted
    order, searcher = Searcher.of(ids, feature, class_probabilities)
    assigned = classes_of(class_probabilities)
    for row, of_class in enumerate(assigned):
        hits = searcher.search(feature[row], class_probabilities[row], NEIGHBOURS + 1, euclidean=True)
        near = zip(order[hits.rows].tolist(), hits.distance.tolist(), strict=True)
        others = [(Neighbour(at, ids[i], float(class_probabilities[i, of_class])), i) for i, at in near if i != row]
        agrees[row] = assigned[others[0][1]] == of_class
        weighted[row] = Ranking(1).settled(other for other, _ in others).ranked_by == "weighted_distance"
    return weighted if agrees.mean() >= FITTING else np.zeros_like(weighted)
