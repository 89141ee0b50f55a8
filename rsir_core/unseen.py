"""Images of classes that the classifier has never seen: do the weights harm them, and is their absence noticed?"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from rsir_core import metrics, search
from rsir_core.errors import LabelError
from rsir_core.metrics import score_retrieval
from rsir_core.nomatch import QUERIES, RATE, Sample, nearest_of_other_classes, threshold
from rsir_core.search import SURE, Doubles, Floats

DISTANCES: Final = ("weighted", "plain")
Flags = np.ndarray[Any, np.dtype[np.bool_]]


def score_unseen(
    feature: Floats, class_probabilities: Floats, labels: Sequence[str], classes: Sequence[str]
) -> dict[str, Any] | None:
    """Scores of images whose label is no class of the classifier, and of the others; None: there are not both.

    Each kind is ranked among its own (unseen among unseen), by the weighted distance, by the distance alone, and by
    `auto`. Then both ask an index that has the known ones only: how many are told that nothing there is like them.

    Args:
        feature: (n, K), by image id.
        class_probabilities: (n, C).
        labels: (n,).
        classes: of the classifier.
    """
    known: Flags = np.isin(labels, classes)
    if known.all() or not known.any():
        return None
    kinds = {"unseen": ~known, "known": known}
    found: dict[str, Any] = {"labels": sorted(set(np.asarray(labels)[~known].tolist()))}
    for kind, chosen in kinds.items():
        of_kind = [label for label, mine in zip(labels, chosen, strict=True) if mine]
        found[kind] = _scores(feature[chosen], class_probabilities[chosen], of_kind)
    found["no_match"] = _no_match(feature, class_probabilities, known)
    return found


def _scores(feature: Floats, class_probabilities: Floats, labels: Sequence[str]) -> dict[str, Any] | None:
    try:
        scores = [score_retrieval(feature, class_probabilities, labels, name == "weighted") for name in DISTANCES]
    except LabelError:  # no two of them share a label
        return None
    sure = class_probabilities.max(axis=1)[scores[0].queries] >= SURE
    result: dict[str, Any] = {"queries": len(sure), "sure": float(sure.mean())}
    for name in (*DISTANCES, "auto"):
        chosen = sure if name == "auto" else np.full(len(sure), name == "weighted")
        precision, nmrr = (
            np.where(chosen, getattr(scores[0], key), getattr(scores[1], key)) for key in ("average_precision", "nmrr")
        )
        result[name] = {"map": float(precision.mean()), "anmrr": float(nmrr.mean())}
    return result


def _no_match(feature: Floats, class_probabilities: Floats, known: Flags) -> dict[str, Any]:
    """Share of queries that are told so, by each distance; the thresholds come from the known rows alone."""
    here = np.flatnonzero(known)
    asking = np.random.default_rng(0).permutation(here)[:QUERIES]
    null = nearest_of_other_classes(
        Sample(feature[asking], class_probabilities[asking]), feature[here], class_probabilities[here]
    )
    best = _best(feature, class_probabilities, here)
    result: dict[str, Any] = {"false_match_rate": RATE, "null_queries": len(asking)}
    for i, name in enumerate(DISTANCES):
        limit = threshold(null[i])
        told = None if limit is None else best[i] >= limit
        result[name] = {
            "threshold": limit,
            "unseen_told": None if told is None else float(told[~known].mean()),
            "known_told_wrongly": None if told is None else float(told[known].mean()),
        }
    return result


def _best(feature: Floats, class_probabilities: Floats, here: search.Ints) -> Doubles:
    """(2, n): of each row the best other one among those that are here, by the weighted distance and by the plain."""
    complement, classes = search.complements(class_probabilities), search.classes(class_probabilities)
    best = np.empty((2, len(feature)))
    size = max(1, metrics.PAIRS // len(here))
    for start in range(0, len(feature), size):
        block = np.arange(start, min(start + size, len(feature)))
        distance = search.distances(feature[block], feature[here])
        distance[block[:, None] == here] = np.inf  # itself
        best[1, block] = distance.min(axis=1)
        distance *= search.query_weights(complement[block], classes[here])
        distance *= search.candidate_weights(complement[here], classes[block])
        best[0, block] = distance.min(axis=1)
    return best
