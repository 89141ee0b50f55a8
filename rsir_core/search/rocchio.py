"""Relevance feedback: a query moved towards what a person marked as good and away from what they marked as bad."""

from typing import Final, NamedTuple

import numpy as np

from rsir_core.arrays import Floats

# Rocchio's weights, as Manning, Raghavan and Schütze give them (Introduction to Information Retrieval, 9.1.1).
QUERY: Final = 1.0
POSITIVE: Final = 0.75
NEGATIVE: Final = 0.15


class Example(NamedTuple):
    """Hold what an image is ranked by: its feature, (K,) float32, and class probabilities, (C,) float32."""

    feature: Floats
    class_probabilities: Floats


def refine(query: Example | None, positive: list[Example], negative: list[Example]) -> Example:
    """Move a query by Rocchio's formula on features and on class probabilities, its weights divided by their sum.

    So the centre of the features does not matter, and the good examples of one kind stay where they are. Probabilities
    that become negative are 0.

    Args:
        query: what was asked with; None: the good examples alone.
        positive: good ones; at least one where there is no query.
        negative: bad ones.
    """
    groups = [(QUERY, [query] if query else []), (POSITIVE, positive), (-NEGATIVE, negative)]
    weights = np.concatenate([np.full(len(group), weight / len(group)) for weight, group in groups if group])
    weights /= weights.sum()
    examples = [example for _, group in groups for example in group]
    feature = weights @ np.stack([e.feature for e in examples])
    p = np.maximum(weights @ np.stack([e.class_probabilities for e in examples]), 0)
    return Example(feature.astype(np.float32), (p / p.sum()).astype(np.float32))
