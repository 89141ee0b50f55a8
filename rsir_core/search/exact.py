"""Exact search by the class-weighted distance (paper section 2.3, equations 6 to 8).

WD(q, r) = (1 − p_q[c_r]) · (1 − p_r[c_q]) · ‖f_q − f_r‖, where c is an image's most probable class. Ties go to the
smaller image id. Distances come from differences, never from ‖a‖² + ‖b‖² − 2ab, so that an identical image is at
distance exactly 0; weights, distances and products are float64, so that nothing underflows.
"""

from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial.distance import cdist

from rsir_core.arrays import Doubles, Floats, Ints, Mask
from rsir_core.search.clusters import Clusters
from rsir_core.search.kernel import ClusterTree, candidates

SMALLEST: Final = np.finfo(np.float32).tiny
# Calibrated probability of its class from which `auto` trusts the weights. Images of 5 classes of UC Merced, say, that
# training never saw lose 6.2 points of mAP to the weights; with 0.5, 0.9, 0.99 here they lose 5.4, 2.3, 0.7.
SURE: Final = 0.99


def complements(class_probabilities: Floats) -> Floats:
    """Compute 1 − p of every class without collapse: as the sum of the other classes' probabilities.

    A confident softmax rounds to 1 in float32, and `1 - p` would put its whole class at distance 0. Where even the
    others have underflowed to 0, the smallest normal number stands for their sum: below every other complement, and
    still ordered by distance.

    Args:
        class_probabilities: (n, C) float32, softmax.

    Returns:
        (n, C) float32, each at least `SMALLEST`.
    """
    n = len(class_probabilities)
    total = class_probabilities.sum(axis=1, dtype=np.float64)  # (n,)
    result = np.empty_like(class_probabilities, dtype=np.float32)
    # Below the top a complement is at least ~1/2, so that this difference of float64 has nothing to cancel.
    np.subtract(total[:, None], class_probabilities, out=result, dtype=np.float64, casting="same_kind")
    top = classes(class_probabilities)
    others = class_probabilities.copy()
    others[np.arange(n), top] = 0
    result[np.arange(n), top] = others.sum(axis=1, dtype=np.float64)
    return np.maximum(result, SMALLEST, out=result)


def classes(class_probabilities: Floats) -> Ints:
    """Find the most probable class of each row, (n,); of equals the first."""
    top: Ints = class_probabilities.argmax(axis=1)
    return top


def distances(queries: Floats, rows: Floats) -> Doubles:
    """Compute ‖f_q − f_r‖ of each query and row: (q, K) and (n, K) to (q, n) float64."""
    result: Doubles = cdist(queries, rows)
    return result


def query_weights(query_complements: Floats, row_classes: Ints) -> Doubles:
    """Compute W_r = 1 − p_q[c_r] (equation 6): (q, C) and (n,) to (q, n) float64."""
    return query_complements.astype(np.float64)[:, row_classes]


def candidate_weights(row_complements: Floats, query_classes: Ints) -> Doubles:
    """Compute W_q = 1 − p_r[c_q] (equation 7): (n, C) and (q,) to (q, n) float64."""
    return row_complements.T[query_classes].astype(np.float64)


@dataclass(frozen=True)
class Hits:
    """The k best rows of a query, best first, with the three factors of each weighted distance; each array is (k,)."""

    rows: Ints  # positions
    weighted_distance: Doubles
    distance: Doubles
    query_weight: Doubles  # equation 6
    candidate_weight: Doubles  # equation 7

    def first(self, k: int) -> Self:
        """Keep the k best."""
        return type(self)(*(getattr(self, f.name)[:k] for f in fields(self)))

    def take(self, positions: Ints) -> Self:
        """Take these hits, in this order."""
        return type(self)(*(getattr(self, f.name)[positions] for f in fields(self)))


class Searcher:
    """Rows in memory, searched exactly.

    Cluster by cluster in the order of their bounds, until no other can hold one of the k best. Nothing is copied.
    """

    def __init__(self, image_ids: pa.ChunkedArray, feature: Floats, complement: Floats, clusters: Clusters) -> None:
        """Take rows that lie in runs.

        Args:
            image_ids: (n,) strings; looked at only where weighted distances are equal.
            feature: (n, K) float32.
            complement: (C, n) float32, see `complements`, of which a query reads one class.
            clusters: the runs.

        Raises:
            ValueError: the four are of different rows, or a value is not finite.
        """
        counts = [len(image_ids), len(feature), complement.shape[1], int(clusters.count.sum())]
        if len(set(counts)) > 1:
            raise ValueError("{} image ids, {} features, {} complements and clusters of {} rows".format(*counts))
        _check_finite(feature, complement)
        self._ids, self._feature, self._complement = image_ids, feature, complement
        self._tree = ClusterTree.of(clusters, feature, complement, clusters.from_centres(feature))

    def __len__(self) -> int:
        return len(self._feature)

    def search(
        self,
        feature: Floats,
        class_probabilities: Floats,
        k: int,
        allowed: Mask | None = None,
        plain: bool = False,
    ) -> Hits:
        """Search the k rows of smallest weighted distance, or all where there are fewer.

        Args:
            feature: the query's, (K,) float32.
            class_probabilities: the query's, (C,) float32.
            k: how many, at least 1.
            allowed: (n,) bool; only these rows are ranked. None: all.
            plain: rank by the distance alone; the factors are told all the same.

        Raises:
            ValueError: k below 1, or arrays that do not fit the rows or are not finite.
        """
        self._check(feature, class_probabilities, k, allowed)
        complement, query_class = complements(class_probabilities[None]), int(class_probabilities.argmax())
        found, _ = candidates(self._tree, (feature, complement[0], query_class), k, allowed, plain)
        hits = Hits(*found)
        key = hits.distance if plain else hits.weighted_distance
        if (key[1:] > key[:-1]).all():
            return hits.first(k)
        ids = [self._ids[row].as_py() for row in hits.rows.tolist()]  # `take` would first join all chunks of all ids
        tied = pa.table([key, pa.array(ids, pa.string())], ["key", "id"])
        best = pc.select_k_unstable(tied, min(k, len(tied)), [("key", "ascending"), ("id", "ascending")])
        return hits.take(best.to_numpy())

    def _check(self, feature: Floats, class_probabilities: Floats, k: int, allowed: Mask | None) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 result must be asked for")
        for name, given, known in (
            ("feature", feature, self._feature.shape[1:]),
            ("class probabilities", class_probabilities, self._complement.shape[:1]),
        ):
            if given.shape != known:
                raise ValueError(f"the query's {name} have shape {given.shape}; the rows' have {known}")
        if allowed is not None and (allowed.shape != (len(self),) or allowed.dtype != np.bool_):
            raise ValueError(f"the filter is {allowed.dtype} {allowed.shape}; it must be bool ({len(self)},)")
        _check_finite(feature, class_probabilities)


def _check_finite(feature: Floats, class_probabilities: Floats) -> None:
    """Check that all numbers are finite: NaN compares with nothing, so it would make a ranking wrong without a sign."""
    if not (np.isfinite(feature).all() and np.isfinite(class_probabilities).all()):
        raise ValueError("a feature or a class probability is NaN or infinite; such an image cannot be ranked")
