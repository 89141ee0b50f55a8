"""Rows of every kind of confidence, and the weighted distance of paper equations 6 to 8 as a plain loop."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from rsir_core.arrays import Floats
from rsir_core.search.distance import SMALLEST

MARGINS = {"uniform": 0.0, "mixed": 1.0, "confident": 8.0, "saturated": 40.0, "underflowed": 500.0}  # of the top logit


class Rows(NamedTuple):
    ids: list[str]
    feature: Floats
    probabilities: Floats


@st.composite
def some_rows(draw: st.DrawFn, most: int = 40) -> Rows:
    """Rows of every kind of confidence, many with the same feature, some identical but for their id."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, K, C = draw(st.integers(1, most)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    logits = rng.normal(size=(n, C))
    top = rng.integers(C, size=n)
    margins = draw(st.lists(st.sampled_from(sorted(MARGINS.values())), min_size=n, max_size=n))
    logits[np.arange(n), top] += margins
    logits[np.array(margins) == 0] = 0
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    feature = rng.integers(-2, 3, size=(n, K)) / 8  # a coarse grid: exact arithmetic, many ties
    copies = rng.integers(n, size=n) if draw(st.booleans()) else np.arange(n)
    probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    ids = [f"{chr(97 + i % 7)}/{i}é" for i in rng.permutation(n)]
    return Rows(ids, feature.astype(np.float32)[copies], probabilities[copies])


def reference_complement(p: Sequence[float], c: int) -> float:
    return max(float(np.float32(math.fsum(q for i, q in enumerate(p) if i != c))), float(SMALLEST))


def reference(
    rows: Rows, q: int, k: int, allowed: Sequence[bool], euclidean: bool, least_weight: float = 0
) -> list[tuple[int, list[float]]]:
    """Equations 6 to 8 as a loop: rows and their weighted distance, distance and two weights, each at least so much."""
    p = rows.probabilities.tolist()
    f = rows.feature.tolist()
    query_class = p[q].index(max(p[q]))
    found = []
    for r, image_id in enumerate(rows.ids):
        if not allowed[r]:
            continue
        distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(f[q], f[r], strict=True)))
        query_weight = max(reference_complement(p[q], p[r].index(max(p[r]))), least_weight)
        candidate_weight = max(reference_complement(p[r], query_class), least_weight)
        weighted = query_weight * candidate_weight * distance
        found.append(
            ((distance if euclidean else weighted, image_id), r, [weighted, distance, query_weight, candidate_weight])
        )
    return [(r, factors) for _, r, factors in sorted(found)[:k]]
