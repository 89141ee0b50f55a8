"""Images of classes that the classifier has never seen: do the weights harm them?"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from rsir_core.arrays import Floats, Mask
from rsir_core.errors import LabelError
from rsir_core.evaluation.metrics import Scores, score_retrieval
from rsir_core.index.no_match import FITTING, NEIGHBOURS
from rsir_core.retrieval.query import LEAST_WEIGHT, Neighbour, Ranking
from rsir_core.search.distance import classes as classes_of
from rsir_core.search.exact import Searcher

DISTANCES: Final = ("weighted", "plain")


def score_unseen(
    feature: Floats, class_probabilities: Floats, labels: Sequence[str], classes: Sequence[str]
) -> dict[str, Any] | None:
    """Score images whose label is no class of the classifier, the others, and all; None: there are not both.

    Each kind is ranked among its own (unseen among unseen, all as `mixed`), by the weighted distance, by the distance
    alone, and by `auto`: by mAP, ANMRR and precision.

    Args:
        feature: (n, K), by image id.
        class_probabilities: (n, C).
        labels: (n,).
        classes: of the classifier.
    """
    known: Mask = np.isin(labels, classes)
    if known.all() or not known.any():  # none is known of an index without classes
        return None
    kinds = {"unseen": ~known, "known": known, "mixed": np.ones(len(known), bool)}
    found: dict[str, Any] = {"labels": sorted(set(np.asarray(labels)[~known].tolist()))}
    for kind, chosen in kinds.items():
        of_kind = [label for label, mine in zip(labels, chosen, strict=True) if mine]
        found[kind] = _scores(feature[chosen], class_probabilities[chosen], of_kind)
    return found


def _scores(feature: Floats, class_probabilities: Floats, labels: Sequence[str]) -> dict[str, Any] | None:
    try:
        scores = [score_retrieval(feature, class_probabilities, labels, name == "weighted") for name in DISTANCES]
    except LabelError:  # no two of them share a label
        return None
    auto, is_weighted = score_auto(feature, class_probabilities, labels, scores[1])
    result: dict[str, Any] = {"queries": len(is_weighted), "sure": float(is_weighted.mean())}
    for name, found in zip((*DISTANCES, "auto"), (*scores, auto), strict=True):
        result[name] = {"map": found.map, "anmrr": found.anmrr, "precision_at": found.precision_at}
    return result


def score_auto(
    feature: Floats, class_probabilities: Floats, labels: Sequence[str], plain: Scores
) -> tuple[Scores, Mask]:
    """Score the order of `auto` for rows that are the whole index, and tell which queries (q,) it weights.

    Args:
        feature: (n, K), by image id.
        class_probabilities: (n, C).
        labels: (n,).
        plain: their scores by the distance alone.
    """
    is_weighted = weighted_by_auto(feature, class_probabilities)[plain.queries]
    weighted = score_retrieval(feature, class_probabilities, labels, least_weight=LEAST_WEIGHT)
    return weighted.where(is_weighted, plain), is_weighted


def weighted_by_auto(feature: Floats, class_probabilities: Floats) -> Mask:
    """Tell which rows `auto` weights, (n,) bool, where they are the whole index: see `Ranking.settled`."""
    ids = [f"{row:012}" for row in range(len(feature))]
    order, searcher = Searcher.of(ids, feature, class_probabilities)
    assigned = classes_of(class_probabilities)
    agrees, weighted = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
    for row, of_class in enumerate(assigned):
        hits = searcher.search(feature[row], class_probabilities[row], NEIGHBOURS + 1, euclidean=True)
        near = zip(order[hits.rows].tolist(), hits.distance.tolist(), strict=True)
        others = [(Neighbour(at, ids[i], float(class_probabilities[i, of_class])), i) for i, at in near if i != row]
        agrees[row] = assigned[others[0][1]] == of_class
        weighted[row] = Ranking(1).settled(other for other, _ in others).ranked_by == "weighted_distance"
    return weighted if agrees.mean() >= FITTING else np.zeros_like(weighted)
