"""The class-weighted distance (paper section 2.3, equations 6 to 8), between any rows.

WD(q, r) = (1 − p_q[c_r]) · (1 − p_r[c_q]) · ‖f_q − f_r‖, where c is an image's most probable class. Distances come from
differences, never from ‖a‖² + ‖b‖² − 2ab, so that an identical image is at distance exactly 0; weights, distances and
products are float64, so that nothing underflows.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from rsir_core.arrays import Doubles, Floats, Ints

SMALLEST: Final = np.finfo(np.float32).tiny
# How far, at most, embeddings of unit length move where each entry falls on the other side of a float16 rounding, as
# happens between batches of different sizes.
ROUNDING: Final = 2.0**-10
# On UC Merced, saving an image at JPEG quality 75 or at 80 % of its size moves 95 % of the features by less than 0.2;
# the nearest other image is at 0.1 in the median. So this finds candidates for the same picture; pixels decide.
NEAR: Final = 0.2
NO_CLASS: Final = ""  # the class of every image of an index without classes


def complements(class_probabilities: Floats) -> Floats:
    """Compute 1 − p of every class without collapse: as the sum of the other classes' probabilities.

    A confident softmax rounds to 1 in float32, and `1 - p` would put its whole class at distance 0. If even the other
    probabilities have underflowed to 0, the smallest normal number replaces their sum: it is below every other
    complement, and rows are still ordered by distance.

    Args:
        class_probabilities: (n, C) float32, softmax.

    Returns:
        (n, C) float32, each at least `SMALLEST`. Without classes (C = 0): (n, 1) ones, since every weight is then 1 and
        the weighted distance is the Euclidean one.
    """
    n = len(class_probabilities)
    if not class_probabilities.shape[1]:
        return np.ones((n, 1), np.float32)
    total = class_probabilities.sum(axis=1, dtype=np.float64)  # (n,)
    result = np.empty_like(class_probabilities, dtype=np.float32)
    # For all but the top class a complement is at least ~1/2, so this float64 difference does not cancel.
    np.subtract(total[:, None], class_probabilities, out=result, dtype=np.float64, casting="same_kind")
    top = classes(class_probabilities)
    others = class_probabilities.copy()
    others[np.arange(n), top] = 0
    result[np.arange(n), top] = others.sum(axis=1, dtype=np.float64)
    return np.maximum(result, SMALLEST, out=result)


def classes(class_probabilities: Floats) -> Ints:
    """Find the most probable class of each row, (n,); ties go to the first; all 0 without classes."""
    if not class_probabilities.shape[1]:
        return np.zeros(len(class_probabilities), np.int64)
    top: Ints = class_probabilities.argmax(axis=1)
    return top


def most_probable(class_probabilities: Floats, names: Sequence[str]) -> tuple[str, float]:
    """Return the name and the probability of the most probable class of one image; `NO_CLASS` and 0 without classes.

    Args:
        class_probabilities: (C,).
        names: C names.
    """
    if not names:
        return NO_CLASS, 0.0
    top = int(class_probabilities.argmax())
    return names[top], float(class_probabilities[top])


def distances(queries: Floats, rows: Floats) -> Doubles:
    """Compute ‖f_q − f_r‖ for each query and row: (q, K) and (n, K) to (q, n) float64."""
    from scipy.spatial.distance import cdist  # noqa: PLC0415 -- which an endpoint's ingress does without

    result: Doubles = cdist(queries, rows)
    return result


def query_weights(query_complements: Floats, row_classes: Ints) -> Doubles:
    """Compute W_r = 1 − p_q[c_r] (equation 6): (q, C) and (n,) to (q, n) float64."""
    return query_complements.astype(np.float64)[:, row_classes]


def candidate_weights(row_complements: Floats, query_classes: Ints) -> Doubles:
    """Compute W_q = 1 − p_r[c_q] (equation 7): (n, C) and (q,) to (q, n) float64."""
    return row_complements.T[query_classes].astype(np.float64)
