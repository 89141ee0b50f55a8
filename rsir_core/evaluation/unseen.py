"""Images of classes that the classifier has never seen: do the weights harm them?"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from rsir_core.arrays import Floats, Mask
from rsir_core.errors import LabelError
from rsir_core.evaluation.auto import score_auto
from rsir_core.evaluation.metrics import score_retrieval

DISTANCES: Final = ("weighted", "plain")


def score_unseen(
    feature: Floats,
    class_probabilities: Floats,
    labels: Sequence[str],
    classes: Sequence[str],
    unaveraged: Floats | None = None,
) -> dict[str, Any] | None:
    """Score images whose label is no class of the classifier, the others, and all; None: there are not both.

    Each kind is ranked among its own (unseen among unseen, all as `mixed`), by the weighted distance, by the distance
    alone, and by `auto`: by mAP, ANMRR and precision.

    Args:
        feature: (n, K), by image id.
        class_probabilities: (n, C).
        labels: (n,).
        classes: of the classifier.
        unaveraged: (n, K), features before they were averaged with their neighbours; None: they were not.
    """
    known: Mask = np.isin(labels, classes)
    if known.all() or not known.any():  # none is known of an index without classes
        return None
    kinds = {"unseen": ~known, "known": known, "mixed": np.ones(len(known), bool)}
    found: dict[str, Any] = {"labels": sorted(set(np.asarray(labels)[~known].tolist()))}
    for kind, chosen in kinds.items():
        of_kind = [label for label, mine in zip(labels, chosen, strict=True) if mine]
        first = None if unaveraged is None else unaveraged[chosen]
        found[kind] = _scores(feature[chosen], class_probabilities[chosen], of_kind, first)
    return found


def _scores(
    feature: Floats, class_probabilities: Floats, labels: Sequence[str], unaveraged: Floats | None
) -> dict[str, Any] | None:
    try:
        scores = [score_retrieval(feature, class_probabilities, labels, name == "weighted") for name in DISTANCES]
    except LabelError:  # no two of them share a label
        return None
    auto, is_weighted = score_auto(feature, class_probabilities, labels, scores[1], unaveraged)
    result: dict[str, Any] = {"queries": len(is_weighted), "sure": float(is_weighted.mean())}
    for name, found in zip((*DISTANCES, "auto"), (*scores, auto), strict=True):
        result[name] = {"map": found.map, "anmrr": found.anmrr, "precision_at": found.precision_at}
    return result
