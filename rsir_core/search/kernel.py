"""The compiled search: visit clusters in the order of their bounds, and rank the rows that can be among the k best.

Within a cluster, a row is skipped by its own bound: for its distance d_r from the centre, ‖f_q − f_r‖ ≥ |d_q − d_r|. So
most features are never read. Nor are most of these bounds computed, since the most confident rows of a cluster come
first.

Distances are first computed in float32, summed in any order, which lets the processor use vector instructions; each
stands for an interval that contains the true distance. The remaining rows are ranked in float64, see `exact`.

All compiled code is in this file: numba caches it until the file changes, and would not notice the change of a bound
imported from elsewhere.
"""

import heapq
from typing import Any, Final, NamedTuple, Self

import numba
import numpy as np

from rsir_core.arrays import Doubles, Floats, Ints, Mask
from rsir_core.search.clusters import Clusters

# Rounding error of a float32 sum of K squares, per term, with a margin; and the error of squares that underflow.
RELATIVE: Final = 2.0**-22
ABSOLUTE: Final = 1e-18
_BELOW: Final = 1 - 1e-12  # covers the float64 rounding of a bound
_ROUNDED: Final = 1e-6  # relative error by which complements of another machine can be out of order
_STEP: Final = 32  # rows; the first of each step tells whether any of them can be within the limit
_ALL: Final = np.empty(0, np.bool_)


class ClusterBounds(NamedTuple):
    """Hold what bounds are computed from, see `clusters`, for m clusters or groups of clusters."""

    of_class: Ints  # (m,)
    centre: Floats  # (m, K)
    radius: Floats  # (m,)
    min_complement: Floats  # (C, m)
    start: Ints  # (m,) first row of each cluster, or first cluster of each group
    stop: Ints  # (m,) one after the last

    @classmethod
    def of(cls, clusters: Clusters, start: Ints, count: Ints) -> Self:
        """Build from clusters, with the first child of each and the number of its children."""
        minima = np.ascontiguousarray(clusters.min_complement.T)
        return cls(clusters.of_class, clusters.centre, clusters.radius, minima, start, start + count)


class ClusterTree(NamedTuple):
    """Hold what a search descends: groups, their clusters, and the clusters' rows."""

    groups: ClusterBounds
    clusters: ClusterBounds
    feature: Floats  # (n, K)
    complement: Floats  # (C, n); a query reads one class
    from_centre: Floats  # (n,) distance of each row from its cluster's centre
    in_order: bool  # whether the most confident rows of each cluster come first; not so in older indexes
    most_rows: int  # of any cluster

    @classmethod
    def of(cls, clusters: Clusters, feature: Floats, complement: Floats, from_centre: Floats) -> Self:
        """Build from rows that are ordered by clusters; the rows are not copied."""
        groups = ClusterBounds.of(clusters.groups(), clusters.group_start, clusters.group_size)
        balls = ClusterBounds.of(clusters, clusters.start, clusters.count)
        in_order = _in_order(complement, balls)
        return cls(groups, balls, feature, complement, from_centre, in_order, int(clusters.count.max(initial=0)))


def candidates(
    tree: ClusterTree, query: tuple[Floats, Floats, int], k: int, allowed: Mask | None, least: float
) -> tuple[tuple[Ints, Doubles, Doubles, Doubles, Doubles], int]:
    """Find every row that can be among the k of smallest weighted distance, including ties for the last place.

    Args:
        tree: of the rows.
        query: feature (K,) float32, complements (C,) float32, most probable class.
        k: at least 1.
        allowed: (n,) bool, the rows to rank; None: all.
        least: what each of the two weights is at least, from 0 to 1. At 1 the Euclidean distance alone ranks, and the
            weighted distances and weights that are returned are those of 0.

    Returns:
        Positions, weighted distances, distances, and weights by equations 6 and 7, none below `least`, in ranked order;
        and the number of rows whose features were read.
    """
    if allowed is not None and not allowed.any():
        none = np.empty(0)
        return (np.empty(0, np.int64), none, none, none, none), 0
    mask = _ALL if allowed is None else allowed
    found: tuple[tuple[Ints, Doubles, Doubles, Doubles, Doubles], int] = _visit(tree, query, k, mask, float(least))
    return found


def _compiled(function: Any) -> Any:
    return numba.njit(nogil=True, cache=True, error_model="numpy")(function)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _distance(a: Any, rows: Any, i: Any) -> Any:
    """Compute ‖a − row i‖ in float32; infinite if a square overflows."""
    total = np.float32(0)
    for d in range(len(a)):
        total += (a[d] - rows[i, d]) * (a[d] - rows[i, d])
    return np.sqrt(total)


@_compiled
def _distances(a: Any, rows: Any, start: Any, stop: Any, out: Any) -> None:
    """Compute ‖a − row j‖ in float32 for each j from start to stop."""
    for j in range(start, stop):
        out[j - start] = _distance(a, rows, j)


@_compiled
def _lower(distance: Any, dimensions: Any) -> Any:
    """Bound the true distance from below."""
    if not np.isfinite(distance):
        return 0.0
    return max(0.0, distance * (1 - (dimensions + 8) * RELATIVE) - ABSOLUTE * np.sqrt(dimensions))


@_compiled
def _upper(distance: Any, dimensions: Any) -> Any:
    """Bound the true distance from above."""
    return distance * (1 + (dimensions + 8) * RELATIVE) + ABSOLUTE * np.sqrt(dimensions)


@_compiled
def _weight(balls: Any, j: Any, query: Any, least: Any) -> Any:
    """Bound the product of the weights of every row of cluster j from below."""
    _, complement, query_class = query
    if least >= 1:
        return 1.0
    query_weight = max(least, np.float64(complement[balls.of_class[j]]))
    return query_weight * max(least, np.float64(balls.min_complement[query_class, j]))


@_compiled
def _near(balls: Any, j: Any, centre: Any, dimensions: Any) -> Any:
    """Bound the distance of every row of cluster j from below, by the distance of its centre."""
    return max(0.0, _lower(centre, dimensions) - balls.radius[j]) * _BELOW


@_compiled
def _row_bounds(weights: Any, from_centre: Any, centre: Any, near: Any, dimensions: Any, out: Any) -> None:
    """Bound each row of a cluster from below, without the query's weight; branch-free, to be vectorised.

    Args:
        weights: (c,) float32, weights by equation 7, and what they are at least.
        from_centre: (c,) float32, rounded distance of each row from the centre.
        centre: rounded distance of the query from the centre.
        near: lower bound of the query's distance from the cluster.
        dimensions: K.
        out: (c,) float64, or longer.
    """
    (weight, least_weight), least, most = weights, _lower(centre, dimensions), _upper(centre, dimensions)
    inner, outer = 1 - (dimensions + 8) * RELATIVE, 1 + (dimensions + 8) * RELATIVE
    edge = ABSOLUTE * np.sqrt(dimensions)
    for i in range(len(weight)):
        away = np.float64(from_centre[i])
        apart = max(least - (away * outer + edge), away * inner - edge - most)
        out[i] = max(least_weight, np.float64(weight[i])) * max(near, apart) * _BELOW


@_compiled
def _in_order(complements: Any, clusters: Any) -> Any:
    """Tell whether the complements of each cluster's class rise from row to row, up to rounding."""
    for j in range(len(clusters.start)):
        most = np.float32(0)
        for i in range(clusters.start[j], clusters.stop[j]):
            weight = complements[clusters.of_class[j], i]
            if weight < most * (1 - _ROUNDED / 2):
                return False
            most = max(most, weight)
    return True


@_compiled
def _prefix_within(weights: Any, most: Any) -> Any:
    """Count the first rows of an ordered cluster whose weight by equation 7 can be at most `most`."""
    stop = 0
    while stop < len(weights) and weights[stop] <= most * (1 + _ROUNDED):
        stop += _STEP
    return min(stop, len(weights))


@_compiled
def _passing(mask: Any, start: Any, stop: Any) -> Any:
    """Return the end of a cluster's rows, or their start if none of them is allowed."""
    if len(mask) == 0 or mask[start:stop].any():
        return stop
    return start


@_compiled
def _first(tree: Any, query: Any, least_weight: Any, distances: Any) -> Any:
    """Choose the cluster to begin with: the nearest cluster of the nearest group; also returns its centre's distance.

    Nearest by the weighted distance of the centre. A limit that is low early lets most of the rest be skipped.

    Args:
        tree: see `ClusterTree`; it has at least one cluster.
        query: see `candidates`.
        least_weight: see `candidates`.
        distances: (g,) float32, of the groups' centres.
    """
    groups, clusters = tree.groups, tree.clusters
    best, least = 0, np.inf
    for g in range(len(groups.start)):
        estimate = _weight(groups, g, query, least_weight) * distances[g]
        if estimate < least:
            best, least = g, estimate
    first, least = groups.start[best], np.inf
    centre = _distance(query[0], clusters.centre, first)
    for j in range(groups.start[best], groups.stop[best]):
        distance = _distance(query[0], clusters.centre, j)
        estimate = _weight(clusters, j, query, least_weight) * distance
        if estimate < least:
            first, centre, least = j, distance, estimate
    return first, centre


@_compiled
def _push(waiting: Any, balls: Any, run: Any, query: Any, allowed: Any, distances: Any) -> None:
    """Push clusters or groups onto the heap of those to visit, ordered by their bounds.

    Args:
        waiting: the heap of (bound, weighted distance of the centre, number, distance of the centre); the second
            orders those that contain the query, whose bound is 0.
        balls: clusters or groups.
        run: the first of them, one after the last, and the offset of their numbers.
        query: see `candidates`.
        allowed: what weights are at least; the limit; the number of one to leave out.
        distances: of their centres, beginning with the first.
    """
    (start, stop, numbered), (least, limit, left_out) = run, allowed
    for j in range(start, stop):
        distance, weight = distances[j - start], _weight(balls, j, query, least)
        bound = weight * _near(balls, j, distance, len(query[0]))
        if bound <= limit and j != left_out:
            heapq.heappush(waiting, (bound, weight * distance, numbered + j, distance))


@_compiled
def _chosen(bounds: Any, query_weight: Any, limit: Any, run: Any, mask: Any, out: Any) -> Any:
    """Select the rows of a run that can be within the limit and are allowed; branch-free, as branches mispredict.

    Args:
        bounds: see `_row_bounds`.
        query_weight: weight by equation 6.
        limit: of weighted distances.
        run: its first row, and one after the last.
        mask: see `allowed` of `candidates`; empty: all are allowed.
        out: (c + 1,) int64, or longer: the rows.
    """
    start, stop = run
    count = 0
    for i in range(start, stop):
        out[count] = i
        count += query_weight * bounds[i - start] <= limit
    if len(mask) == 0:
        return count
    passing = 0
    for i in out[:count]:
        out[passing] = i
        passing += mask[i]
    return passing


@_compiled
def _visit(tree: Any, query: Any, k: Any, mask: Any, least: Any) -> Any:
    """Visit clusters, see `candidates`. It is one function because splitting it took 7 % longer."""
    groups, clusters, features, complements, from_centre, in_order, most_rows = tree
    (feature, complement, query_class), euclidean = query, least >= 1
    m, K = len(clusters.start), len(feature)
    bounds, ones = np.empty(most_rows), np.ones(most_rows if euclidean else 0, np.float32)
    chosen, near_rows = np.empty(most_rows + 1, np.int64), np.empty(most_rows, np.float32)
    distances = np.empty(max(m, len(groups.start)), np.float32)
    waiting, first = [(0.0, 0.0, 0, np.float32(0))][:0], -1
    if m > 0:
        _distances(feature, groups.centre, 0, len(groups.start), distances)
        first, centre = _first(tree, query, least, distances)
        waiting.append((-1.0, 0.0, first, centre))
    best = [-np.inf][:0]  # negatives of the k smallest upper ends: a heap with the largest first
    limit, looked_at = np.inf, 0
    found = [(0.0, 0, 0)][:0]  # lower end, row, class
    while len(waiting) > 0:  # numbers below m are clusters, the others groups
        bound, _, j, centre = heapq.heappop(waiting)
        if bound > limit:
            break
        if j >= m:
            start, stop = groups.start[j - m], groups.stop[j - m]
            _distances(feature, clusters.centre, start, stop, distances)
            _push(waiting, clusters, (start, stop, 0), query, (least, limit, first), distances)
            continue
        near = _near(clusters, j, centre, K)
        query_weight = 1.0 if euclidean else max(least, np.float64(complement[clusters.of_class[j]]))
        start, stop = clusters.start[j], _passing(mask, clusters.start[j], clusters.stop[j])
        weights = ones[: stop - start] if euclidean else complements[query_class, start:stop]
        if in_order and near > 0 and not euclidean and clusters.of_class[j] == query_class:
            weights = weights[: _prefix_within(weights, limit / (query_weight * near))]
            stop = start + len(weights)
        _row_bounds((weights, least), from_centre[start:stop], centre, near, K, bounds)
        count = _chosen(bounds, query_weight, limit, (start, stop), mask, chosen)
        looked_at += count
        for c in range(count):
            near_rows[c] = _distance(feature, features, chosen[c])
        for c in range(count):
            i, distance = chosen[c], np.float64(near_rows[c])
            weight = query_weight if euclidean else query_weight * max(least, np.float64(complements[query_class, i]))
            low = weight * _lower(distance, K)
            if low > limit:
                continue
            high = weight * _upper(distance, K)
            found.append((low, i, clusters.of_class[j]))
            if len(best) < k:
                heapq.heappush(best, -high)
            elif high < -best[0]:
                heapq.heapreplace(best, -high)
            if len(best) == k:
                limit = -best[0]
        if bound < 0:  # after the first cluster, groups of most classes exceed the limit
            _push(waiting, groups, (0, len(groups.start), m), query, (least, limit, -1), distances)
    return _ranked(tree, query, [(i, c) for low, i, c in found if low <= limit], least), looked_at


@_compiled
def _ranked(tree: Any, query: Any, found: Any, least: Any) -> Any:
    """Rank rows (position, class) by weighted or Euclidean distance in float64; returns the factors as well."""
    feature, complement, query_class = query
    euclidean = least >= 1
    least = 0.0 if euclidean else least
    n = len(found)
    rows, factors = np.empty(n, np.int64), np.empty((4, n))
    for at in range(n):
        i, of_class = found[at]
        squares = 0.0
        for d in range(len(feature)):
            squares += (np.float64(feature[d]) - np.float64(tree.feature[i, d])) ** 2
        distance = np.sqrt(squares)
        query_weight = max(least, np.float64(complement[of_class]))
        weight = max(least, np.float64(tree.complement[query_class, i]))
        rows[at], factors[:, at] = i, (query_weight * weight * distance, distance, query_weight, weight)
    order = np.argsort(factors[1] if euclidean else factors[0])
    return rows[order], factors[0][order], factors[1][order], factors[2][order], factors[3][order]
