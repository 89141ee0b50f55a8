"""Images of classes that the classifier has never seen: do the weights harm them?"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from rsir_core.arrays import Floats, Mask
from rsir_core.errors import LabelError
from rsir_core.evaluation.metrics import score_retrieval
from rsir_core.search.distance import CONFIDENT

DISTANCES: Final = ("weighted", "plain")


def score_unseen(
    feature: Floats, class_probabilities: Floats, labels: Sequence[str], classes: Sequence[str]
) -> dict[str, Any] | None:
    """Score images whose label is no class of the classifier, and the others; None: there are not both.

    Each kind is ranked among its own (unseen among unseen), by the weighted distance, by the distance alone, and by
    `auto`.

    Args:
        feature: (n, K), by image id.
        class_probabilities: (n, C).
        labels: (n,).
        classes: of the classifier.
    """
    known: Mask = np.isin(labels, classes)
    if known.all() or not known.any():  # none is known of an index without classes
        return None
    kinds = {"unseen": ~known, "known": known}
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
    confident = class_probabilities.max(axis=1)[scores[0].queries] >= CONFIDENT
    result: dict[str, Any] = {"queries": len(confident), "sure": float(confident.mean())}
    for name in (*DISTANCES, "auto"):
        chosen = confident if name == "auto" else np.full(len(confident), name == "weighted")
        precision, nmrr = (
            np.where(chosen, getattr(scores[0], key), getattr(scores[1], key)) for key in ("average_precision", "nmrr")
        )
        result[name] = {"map": float(precision.mean()), "anmrr": float(nmrr.mean())}
    return result
