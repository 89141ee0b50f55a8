"""The rows that can be among the k best of a query, ranked: cluster by cluster, in the order of their bounds.

Within a cluster a row is passed over by its own bound: for its distance d_r from the centre, ‖f_q − f_r‖ ≥ |d_q − d_r|.
So most features are never read; nor are most bounds computed, as the rows of a cluster lie with the surest first.

Distances are float32 first, summed in any order, which the processor does several at a time; each stands for an
interval that holds the true one. What is left is ranked by float64, as `exact` says.

All that is compiled is in this one file: numba keeps what it has compiled until that file changes, and would not see a
change of a bound that is imported from another.
"""

import heapq
from typing import Any, Final, NamedTuple, Self

import numba
import numpy as np

from rsir_core.arrays import Doubles, Floats, Ints, Mask
from rsir_core.search.clusters import Clusters

# Rounding of a float32 sum of K squares, per term, with room to spare; and what squares that underflow can hide.
RELATIVE: Final = 2.0**-22
ABSOLUTE: Final = 1e-18
_BELOW: Final = 1 - 1e-12  # for the float64 rounding of a bound
_ROUNDED: Final = 1e-6  # by how much of itself a complement can be out of order, where another machine rounded it
_STEP: Final = 32  # rows of which the first says whether any can be within the limit
_ALL: Final = np.empty(0, np.bool_)


class ClusterBounds(NamedTuple):
    """Hold what bounds are computed from, see `clusters`: of m clusters, or of the groups that they lie in."""

    of_class: Ints  # (m,)
    centre: Floats  # (m, K)
    radius: Floats  # (m,)
    min_complement: Floats  # (C, m)
    start: Ints  # (m,) the first row of each cluster, or the first cluster of each group
    stop: Ints  # (m,) one after the last

    @classmethod
    def of(cls, clusters: Clusters, start: Ints, count: Ints) -> Self:
        """Build from clusters, with what each of them begins with and how many of it there are."""
        minima = np.ascontiguousarray(clusters.min_complement.T)
        return cls(clusters.of_class, clusters.centre, clusters.radius, minima, start, start + count)


class ClusterTree(NamedTuple):
    """Hold what a search walks down: groups, their clusters, and the rows of these."""

    groups: ClusterBounds
    clusters: ClusterBounds
    feature: Floats  # (n, K)
    complement: Floats  # (C, n): a query reads one class of it
    from_centre: Floats  # (n,) of each row's cluster
    in_order: bool  # the rows of each cluster, the surest of their class first; of older indexes they are not
    most_rows: int  # in a cluster

    @classmethod
    def of(cls, clusters: Clusters, feature: Floats, complement: Floats, from_centre: Floats) -> Self:
        """Build from rows that lie in clusters; nothing of the size of the rows is copied."""
        groups = ClusterBounds.of(clusters.groups(), clusters.group_start, clusters.group_size)
        balls = ClusterBounds.of(clusters, clusters.start, clusters.count)
        in_order = _in_order(complement, balls)
        return cls(groups, balls, feature, complement, from_centre, in_order, int(clusters.count.max(initial=0)))


def candidates(
    tree: ClusterTree, query: tuple[Floats, Floats, int], k: int, allowed: Mask | None, plain: bool
) -> tuple[tuple[Ints, Doubles, Doubles, Doubles, Doubles], int]:
    """Find every row that can be among the k of smallest weighted distance, those that tie for the last place included.

    Args:
        tree: of the rows.
        query: feature (K,) float32, complements (C,) float32, most probable class.
        k: at least 1.
        allowed: (n,) bool; the others are passed over. None: none is.
        plain: by the distance alone.

    Returns:
        their positions, weighted distances, distances, and weights by equations 6 and 7, in the order of what they are
        ranked by; and how many rows were looked at.
    """
    if allowed is not None and not allowed.any():
        none = np.empty(0)
        return (np.empty(0, np.int64), none, none, none, none), 0
    mask = _ALL if allowed is None else allowed
    found: tuple[tuple[Ints, Doubles, Doubles, Doubles, Doubles], int] = _visit(tree, query, k, mask, plain)
    return found


def _compiled(function: Any) -> Any:
    return numba.njit(nogil=True, cache=True, error_model="numpy")(function)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _distance(a: Any, rows: Any, i: Any) -> Any:
    """Compute ‖a − row i‖ in float32; infinite where a square is."""
    total = np.float32(0)
    for d in range(len(a)):
        total += (a[d] - rows[i, d]) * (a[d] - rows[i, d])
    return np.sqrt(total)


@_compiled
def _distances(a: Any, rows: Any, start: Any, stop: Any, out: Any) -> None:
    """Compute ‖a − row j‖ in float32, of each from start to stop."""
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
def _weight(balls: Any, j: Any, query: Any, plain: Any) -> Any:
    """Bound the product of the weights of every row of cluster j from below."""
    _, complement, query_class = query
    if plain:
        return 1.0
    return np.float64(complement[balls.of_class[j]]) * np.float64(balls.min_complement[query_class, j])


@_compiled
def _near(balls: Any, j: Any, centre: Any, dimensions: Any) -> Any:
    """Bound the distance of every row of cluster j from below, by how far its centre is."""
    return max(0.0, _lower(centre, dimensions) - balls.radius[j]) * _BELOW


@_compiled
def _row_bounds(weights: Any, from_centre: Any, centre: Any, near: Any, dimensions: Any, out: Any) -> None:
    """Bound each row of a cluster from below, but for the query's weight; without a branch, to be done at once.

    Args:
        weights: (c,) float32, of equation 7.
        from_centre: (c,) float32, how far each row is from the centre; rounded.
        centre: how far the query is from it; rounded.
        near: how far the query is from the ball.
        dimensions: K.
        out: (c,) float64, or longer.
    """
    least, most = _lower(centre, dimensions), _upper(centre, dimensions)
    inner, outer = 1 - (dimensions + 8) * RELATIVE, 1 + (dimensions + 8) * RELATIVE
    edge = ABSOLUTE * np.sqrt(dimensions)
    for i in range(len(weights)):
        away = np.float64(from_centre[i])
        apart = max(least - (away * outer + edge), away * inner - edge - most)
        out[i] = np.float64(weights[i]) * max(near, apart) * _BELOW


@_compiled
def _in_order(complements: Any, clusters: Any) -> Any:
    """Tell whether the rows of each cluster have rising complements of their class, but for rounding."""
    for j in range(len(clusters.start)):
        most = np.float32(0)
        for i in range(clusters.start[j], clusters.stop[j]):
            weight = complements[clusters.of_class[j], i]
            if weight < most * (1 - _ROUNDED / 2):
                return False
            most = max(most, weight)
    return True


@_compiled
def _sure(weights: Any, most: Any) -> Any:
    """Count how many of the first rows of a cluster in order can be of at most such a weight by equation 7."""
    stop = 0
    while stop < len(weights) and weights[stop] <= most * (1 + _ROUNDED):
        stop += _STEP
    return min(stop, len(weights))


@_compiled
def _passing(mask: Any, start: Any, stop: Any) -> Any:
    """Find where the rows of a cluster end that need be looked at: where they begin, if none of them is allowed."""
    if len(mask) == 0 or mask[start:stop].any():
        return stop
    return start


@_compiled
def _first(tree: Any, query: Any, plain: Any, distances: Any) -> Any:
    """Choose the cluster that a search begins with, and how far its centre is: the nearest group's nearest.

    Nearest by the weighted distance of the centre: a limit that is low soon spares most of what follows.

    Args:
        tree: see `ClusterTree`; with a cluster.
        query: see `candidates`.
        plain: see `candidates`.
        distances: (g,) float32, of the groups' centres.
    """
    groups, clusters = tree.groups, tree.clusters
    best, least = 0, np.inf
    for g in range(len(groups.start)):
        estimate = _weight(groups, g, query, plain) * distances[g]
        if estimate < least:
            best, least = g, estimate
    first, least = groups.start[best], np.inf
    centre = _distance(query[0], clusters.centre, first)
    for j in range(groups.start[best], groups.stop[best]):
        distance = _distance(query[0], clusters.centre, j)
        estimate = _weight(clusters, j, query, plain) * distance
        if estimate < least:
            first, centre, least = j, distance, estimate
    return first, centre


@_compiled
def _push(waiting: Any, balls: Any, run: Any, query: Any, allowed: Any, distances: Any) -> None:
    """Let balls wait to be looked into, by their bounds.

    Args:
        waiting: the heap: bound, weighted distance of the centre (so that of balls around the query the best come
            first), the ball's number, distance of the centre.
        balls: clusters or groups.
        run: the first of them, one after the last, and from where on they are numbered.
        query: see `candidates`.
        allowed: whether by the distance alone; the limit; which one is left out.
        distances: of their centres, from the first on.
    """
    (start, stop, numbered), (plain, limit, left_out) = run, allowed
    for j in range(start, stop):
        distance, weight = distances[j - start], _weight(balls, j, query, plain)
        bound = weight * _near(balls, j, distance, len(query[0]))
        if bound <= limit and j != left_out:
            heapq.heappush(waiting, (bound, weight * distance, numbered + j, distance))


@_compiled
def _chosen(bounds: Any, query_weight: Any, limit: Any, run: Any, mask: Any, out: Any) -> Any:
    """Select the rows of a run that can be within the limit and are allowed; no branch, as none could be foreseen.

    Args:
        bounds: see `_row_bounds`.
        query_weight: of equation 6.
        limit: of weighted distances.
        run: its first row, and one after the last.
        mask: see `candidates`; none: all are allowed.
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
def _visit(tree: Any, query: Any, k: Any, mask: Any, plain: Any) -> Any:
    """Visit clusters; see `candidates`. In one piece: taken apart, it took 7 % longer."""
    groups, clusters, features, complements, from_centre, in_order, most_rows = tree
    feature, complement, query_class = query
    m, K = len(clusters.start), len(feature)
    bounds, ones = np.empty(most_rows), np.ones(most_rows if plain else 0, np.float32)
    chosen, near_rows = np.empty(most_rows + 1, np.int64), np.empty(most_rows, np.float32)
    distances = np.empty(max(m, len(groups.start)), np.float32)
    waiting, first = [(0.0, 0.0, 0, np.float32(0))][:0], -1
    if m > 0:
        _distances(feature, groups.centre, 0, len(groups.start), distances)
        first, centre = _first(tree, query, plain, distances)
        waiting.append((-1.0, 0.0, first, centre))
    best = [-np.inf][:0]  # of the k smallest upper ends, the negative: the largest comes first
    limit, looked_at = np.inf, 0
    found = [(0.0, 0, 0)][:0]  # lower end, row, class
    while len(waiting) > 0:  # of clusters, and from m on groups
        bound, _, j, centre = heapq.heappop(waiting)
        if bound > limit:
            break
        if j >= m:
            start, stop = groups.start[j - m], groups.stop[j - m]
            _distances(feature, clusters.centre, start, stop, distances)
            _push(waiting, clusters, (start, stop, 0), query, (plain, limit, first), distances)
            continue
        near = _near(clusters, j, centre, K)
        query_weight = 1.0 if plain else np.float64(complement[clusters.of_class[j]])
        start, stop = clusters.start[j], _passing(mask, clusters.start[j], clusters.stop[j])
        weights = ones[: stop - start] if plain else complements[query_class, start:stop]
        if in_order and near > 0 and not plain and clusters.of_class[j] == query_class:
            weights = weights[: _sure(weights, limit / (query_weight * near))]
            stop = start + len(weights)
        _row_bounds(weights, from_centre[start:stop], centre, near, K, bounds)
        count = _chosen(bounds, query_weight, limit, (start, stop), mask, chosen)
        looked_at += count
        for c in range(count):
            near_rows[c] = _distance(feature, features, chosen[c])
        for c in range(count):
            i, distance = chosen[c], np.float64(near_rows[c])
            weight = query_weight if plain else query_weight * np.float64(complements[query_class, i])
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
        if bound < 0:  # that was the first; of most classes no group is within the limit now
            _push(waiting, groups, (0, len(groups.start), m), query, (plain, limit, -1), distances)
    return _ranked(tree, query, [(i, c) for low, i, c in found if low <= limit], plain), looked_at


@_compiled
def _ranked(tree: Any, query: Any, found: Any, plain: Any) -> Any:
    """Rank rows (position, class) by weighted distance or distance, with the factors, float64."""
    feature, complement, query_class = query
    n = len(found)
    rows, factors = np.empty(n, np.int64), np.empty((4, n))
    for at in range(n):
        i, of_class = found[at]
        squares = 0.0
        for d in range(len(feature)):
            squares += (np.float64(feature[d]) - np.float64(tree.feature[i, d])) ** 2
        distance = np.sqrt(squares)
        query_weight, weight = np.float64(complement[of_class]), np.float64(tree.complement[query_class, i])
        rows[at], factors[:, at] = i, (query_weight * weight * distance, distance, query_weight, weight)
    order = np.argsort(factors[1] if plain else factors[0])
    return rows[order], factors[0][order], factors[1][order], factors[2][order], factors[3][order]
