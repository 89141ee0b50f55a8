"""Relevance feedback: move a query towards images marked as relevant and away from those marked as not."""

from typing import Final, NamedTuple

import numpy as np

from rsir_core.arrays import Floats

# Rocchio's weights as in Manning, Raghavan and Schütze, Introduction to Information Retrieval, 9.1.1.
QUERY: Final = 1.0
POSITIVE: Final = 0.75
NEGATIVE: Final = 0.15


class Example(NamedTuple):
    """Hold an image's feature, (K,) float32, and class probabilities, (C,) float32."""

    feature: Floats
    class_probabilities: Floats


def refine(query: Example | None, positive: list[Example], negative: list[Example]) -> Example:
    """Apply Rocchio's formula to features and class probabilities, with weights that are divided by their sum.

    Dividing makes the result independent of the features' centre, and keeps it where all relevant examples agree.
    Negative probabilities become 0.

    Args:
        query: the query; None: examples alone.
        positive: relevant examples; at least one if there is no query.
        negative: examples that are not relevant.
    """
    groups = [(QUERY, [query] if query else []), (POSITIVE, positive), (-NEGATIVE, negative)]
    weights = np.concatenate([np.full(len(group), weight / len(group)) for weight, group in groups if group])
    weights /= weights.sum()
    examples = [example for _, group in groups for example in group]
    feature = weights @ np.stack([e.feature for e in examples])
    p = np.maximum(weights @ np.stack([e.class_probabilities for e in examples]), 0)
    return Example(feature.astype(np.float32), (p / p.sum()).astype(np.float32))
