"""How often queries of labelled images are told rightly and wrongly that they have no match."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rsir_core.arrays import Floats, Ints, Mask
from rsir_core.evaluation.metrics import PAIRS
from rsir_core.index.no_match import (
    NEIGHBOURS,
    QUERIES,
    RATE,
    NoMatchThreshold,
    Sample,
    nearest_of,
    nearest_rows,
    probability_of,
)
from rsir_core.search import distance as search


def score_no_match(
    feature: Floats, class_probabilities: Floats, labels: Sequence[str], classes: Sequence[str]
) -> dict[str, Any] | None:
    """Measure how often a threshold is right and wrong for labelled images; None if no label is a known class.

    The threshold is measured on the images of known classes. Each of them is a query twice: with the images of its
    label left out, so that the index has nothing for it, and with itself alone left out. All other images are queries
    once.

    Args:
        feature: (n, K).
        class_probabilities: (n, C).
        labels: (n,).
        classes: of the classifier.

    Returns:
        `false_match_rate` (the promised rate), `queries`, `threshold` (of the nearest row), `agreeing_distance` (of the
        five nearest, see `NoMatchThreshold`), and three measured shares:
        `false_matches`: queries that match although the images of their label were left out;
        `told_wrongly`: queries without a match although images of their label are there;
        `unseen_told`: queries of other labels without a match (None: there are none).
        All shares are None if there is no threshold.
    """
    names = np.asarray(labels)
    known: Mask = np.isin(names, classes)
    if not known.any():
        return None
    here = np.flatnonzero(known)
    asking = np.random.default_rng(0).permutation(here)[:QUERIES]
    sample = Sample(feature[asking], class_probabilities[asking])
    measured = NoMatchThreshold.of("", "", nearest_rows(sample, feature[here], class_probabilities[here]), len(here))
    found: dict[str, Any] = {"false_match_rate": RATE, "queries": len(asking), "threshold": measured.distance}
    found["agreeing_distance"] = measured.agreeing_distance
    if measured.distance is None:
        return found | dict.fromkeys(("false_matches", "told_wrongly", "unseen_told"))
    rejected, rejected_without = _rejected(measured, feature, class_probabilities, names, here)
    return found | {
        "false_matches": float((~rejected_without[known]).mean()),
        "told_wrongly": float(rejected[known].mean()),
        "unseen_told": None if known.all() else float(rejected[~known].mean()),
    }


def _rejected(
    limits: NoMatchThreshold, feature: Floats, class_probabilities: Floats, labels: np.ndarray[Any, Any], here: Ints
) -> tuple[Mask, Mask]:
    """Tell which images have no match among the other ones of those here, and among those of other labels: 2 × (n,)."""
    asked = search.classes(class_probabilities)
    rejected, without = np.empty(len(feature), np.bool_), np.empty(len(feature), np.bool_)
    size = max(1, PAIRS // len(here))
    for start in range(0, len(feature), size):
        block = np.arange(start, min(start + size, len(feature)))
        distance = search.distances(feature[block], feature[here])
        probability = probability_of(asked[block], class_probabilities[here])
        distance[block[:, None] == here] = np.inf  # itself
        rejected[block] = limits.rejects(*nearest_of(distance, probability, NEIGHBOURS))
        distance[labels[block][:, None] == labels[here]] = np.inf
        without[block] = limits.rejects(*nearest_of(distance, probability, NEIGHBOURS))
    return rejected, without
