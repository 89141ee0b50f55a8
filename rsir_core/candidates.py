"""The rows that can be among the k best of a query: cluster by cluster, in the order of their bounds.

Distances are float32 here, summed in any order, which the processor does several at a time; each stands for an interval
that holds the true one. What is left is ranked exactly by `search`.
"""

import heapq
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from rsir_core.clusters import Clusters, Floats, Ints

# Rounding of a float32 sum of K squares, per term, with room to spare; and what squares that underflow can hide.
RELATIVE: Final = 2.0**-22
ABSOLUTE: Final = 1e-18
_BELOW: Final = 1 - 1e-12  # for the float64 rounding of a bound


def candidates(
    rows: tuple[Floats, Floats, Clusters],
    query: tuple[Floats, Floats, int],
    k: int,
    allowed: npt.NDArray[np.bool_] | None,
    plain: bool,
) -> tuple[Ints, Ints]:
    """Every row that can be among the k of smallest weighted distance, those that tie for the last place included.

    Args:
        rows: feature (n, K) float32, complements (n, C) float32, and the runs that they lie in.
        query: feature (K,) float32, complements (C,) float32, most probable class.
        k: at least 1.
        allowed: (n,) bool; the others are passed over. None: none is.
        plain: by the distance alone.

    Returns:
        positions of rows, and the class of each.
    """
    feature, complements, clusters = rows
    mask = np.empty(0, np.bool_) if allowed is None else allowed
    balls = clusters.of_class, clusters.centre, clusters.radius, clusters.min_complement
    runs = clusters.count, clusters.of_class, _bounds(balls, query, plain)
    found: tuple[Ints, Ints] = _visit((feature, complements), runs, query, k, mask, plain)
    return found


def _compiled(function: Any) -> Any:
    return numba.njit(nogil=True, cache=True, error_model="numpy")(function)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _distance(a: Any, b: Any) -> Any:
    """‖a − b‖ in float32; infinite where a square is."""
    total = np.float32(0)
    for i in range(len(a)):
        total += (a[i] - b[i]) * (a[i] - b[i])
    return np.sqrt(total)


@_compiled
def _lower(distance: Any, dimensions: Any) -> Any:
    """What the true distance is at least."""
    if not np.isfinite(distance):
        return 0.0
    return max(0.0, distance * (1 - (dimensions + 8) * RELATIVE) - ABSOLUTE * np.sqrt(dimensions))


@_compiled
def _upper(distance: Any, dimensions: Any) -> Any:
    """What the true distance is at most."""
    return distance * (1 + (dimensions + 8) * RELATIVE) + ABSOLUTE * np.sqrt(dimensions)


@_compiled
def _bounds(balls: Any, query: Any, plain: Any) -> Any:
    """What every row of each cluster has at least, see `clusters`: (m,) float64."""
    (of_class, centre, radius, min_complement), (feature, complement, query_class) = balls, query
    result = np.empty(len(of_class))
    for j in range(len(of_class)):
        near = max(0.0, _lower(_distance(feature, centre[j]), len(feature)) - radius[j]) * _BELOW
        weight = 1.0 if plain else np.float64(complement[of_class[j]]) * np.float64(min_complement[j, query_class])
        result[j] = weight * near
    return result


@_compiled
def _visit(rows: Any, runs: Any, query: Any, k: Any, mask: Any, plain: Any) -> Any:
    (features, complements), (count, of_class, bounds) = rows, runs
    feature, complement, query_class = query
    start = np.cumsum(count) - count
    waiting = [(bounds[j], j) for j in range(len(bounds))]
    heapq.heapify(waiting)
    best = [-np.inf][:0]  # of the k smallest upper ends, the negative: the largest comes first
    limit = np.inf
    found = [(0.0, 0, 0)][:0]  # lower end, row, class
    while len(waiting) > 0:
        bound, j = heapq.heappop(waiting)
        if bound > limit:
            break
        query_weight = 1.0 if plain else np.float64(complement[of_class[j]])
        for i in range(start[j], start[j] + count[j]):
            if len(mask) > 0 and not mask[i]:
                continue
            weight = query_weight if plain else query_weight * np.float64(complements[i, query_class])
            distance = np.float64(_distance(feature, features[i]))
            low = weight * _lower(distance, len(feature))
            if low > limit:
                continue
            high = weight * _upper(distance, len(feature))
            found.append((low, i, of_class[j]))
            if len(best) < k:
                heapq.heappush(best, -high)
            elif high < -best[0]:
                heapq.heapreplace(best, -high)
            if len(best) == k:
                limit = -best[0]
    near = np.array([i for low, i, c in found if low <= limit], dtype=np.int64)
    classes = np.array([c for low, i, c in found if low <= limit], dtype=np.int64)
    return near, classes
