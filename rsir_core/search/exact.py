"""Exact search by the class-weighted distance (paper section 2.3, equations 6 to 8).

WD(q, r) = (1 − p_q[c_r]) · (1 − p_r[c_q]) · ‖f_q − f_r‖, where c is an image's most probable class. Ties go to the
smaller image id. Distances come from differences, never from ‖a‖² + ‖b‖² − 2ab, so that an identical image is at
distance exactly 0; weights, distances and products are float64, so that nothing underflows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial.distance import cdist

from rsir_core.arrays import Doubles, Floats, Ints, Mask
from rsir_core.search.clusters import Clusters, make_clusters
from rsir_core.search.kernel import ClusterTree, candidates

SMALLEST: Final = np.finfo(np.float32).tiny
# Calibrated class probability from which distance `auto` uses the weights. Of 5 classes of UC Merced that training
# never saw, images lose 6.2 points of mAP by the weights; with 0.5, 0.9 and 0.99 here they lose 5.4, 2.3 and 0.7.
CONFIDENT: Final = 0.99
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
    """Hold the k best rows of a query, best first, with the factors of their weighted distances; arrays are (k,)."""

    rows: Ints  # positions
    weighted_distance: Doubles
    distance: Doubles
    query_weight: Doubles  # equation 6
    candidate_weight: Doubles  # equation 7

    def first(self, k: int) -> Self:
        """Keep the k best."""
        return type(self)(*(getattr(self, f.name)[:k] for f in fields(self)))

    def take(self, positions: Ints) -> Self:
        """Return the hits at these positions, in that order."""
        return type(self)(*(getattr(self, f.name)[positions] for f in fields(self)))


class Searcher:
    """Search rows in memory exactly.

    Clusters are visited in the order of their bounds, until no other can hold one of the k best. Rows are not copied.
    """

    def __init__(self, image_ids: pa.ChunkedArray, feature: Floats, complement: Floats, clusters: Clusters) -> None:
        """Take rows that are ordered by clusters.

        Args:
            image_ids: (n,) strings; read only to break ties.
            feature: (n, K) float32.
            complement: (C, n) float32, see `complements`; a query reads one class. Without classes (1, n).
            clusters: the runs.

        Raises:
            ValueError: the arguments have different numbers of rows, or a value is not finite.
        """
        counts = [len(image_ids), len(feature), complement.shape[1], int(clusters.count.sum())]
        if len(set(counts)) > 1:
            raise ValueError("{} image ids, {} features, {} complements and clusters of {} rows".format(*counts))
        _check_finite(feature, complement)
        self._ids, self._feature, self._complement = image_ids, feature, complement
        self._tree = ClusterTree.of(clusters, feature, complement, clusters.from_centres(feature))

    @classmethod
    def of(cls, image_ids: Sequence[str], feature: Floats, class_probabilities: Floats) -> tuple[Ints, Self]:
        """Cluster rows and build their searcher; returns the order (n,) of its rows, and the searcher.

        Args:
            image_ids: n ids.
            feature: (n, K) float32.
            class_probabilities: (n, C) float32.

        Raises:
            ValueError: the arguments have different numbers of rows, or a value is not finite.
        """
        if not len(image_ids) == len(feature) == len(class_probabilities):
            counts = len(image_ids), len(feature), len(class_probabilities)
            raise ValueError("{} image ids, {} features and {} class probabilities are no rows".format(*counts))
        _check_finite(feature, class_probabilities)
        complement = complements(class_probabilities)
        order, clusters = make_clusters(feature, classes(class_probabilities), complement)
        ids = pa.chunked_array([pa.array(image_ids, pa.string()).take(pa.array(order))])
        return order, cls(ids, feature[order], np.ascontiguousarray(complement[order].T), clusters)

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
        """Find the k rows of smallest weighted distance, or all rows if there are fewer.

        Args:
            feature: the query's, (K,) float32.
            class_probabilities: the query's, (C,) float32.
            k: number of results, at least 1.
            allowed: (n,) bool, the rows to rank; None: all.
            plain: rank by the Euclidean distance alone; the factors are returned all the same.

        Raises:
            ValueError: k below 1, or arrays that do not fit the rows or are not finite.
        """
        self._check(feature, class_probabilities, k, allowed)
        complement, query_class = complements(class_probabilities[None]), classes(class_probabilities[None])
        found, _ = candidates(self._tree, (feature, complement[0], int(query_class[0])), k, allowed, plain)
        hits = Hits(*found)
        key = hits.distance if plain else hits.weighted_distance
        if (key[1:] > key[:-1]).all():
            return hits.first(k)
        ids = [self._ids[row].as_py() for row in hits.rows.tolist()]  # `take` would first concatenate all chunks
        tied = pa.table([key, pa.array(ids, pa.string())], ["key", "id"])
        best = pc.select_k_unstable(tied, min(k, len(tied)), [("key", "ascending"), ("id", "ascending")])
        return hits.take(best.to_numpy())

    def _check(self, feature: Floats, class_probabilities: Floats, k: int, allowed: Mask | None) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 result must be asked for")
        without_classes = class_probabilities.shape == (0,)  # for which the complements have one row, see `complements`
        for name, given, known in (
            ("feature", feature.shape, self._feature.shape[1:]),
            ("class probabilities", (1,) if without_classes else class_probabilities.shape, self._complement.shape[:1]),
        ):
            if given != known:
                raise ValueError(f"the query's {name} have shape {given}; the rows' have {known}")
        if allowed is not None and (allowed.shape != (len(self),) or allowed.dtype != np.bool_):
            raise ValueError(f"the filter is {allowed.dtype} {allowed.shape}; it must be bool ({len(self)},)")
        _check_finite(feature, class_probabilities)


def _check_finite(feature: Floats, class_probabilities: Floats) -> None:
    """Raise ValueError unless all numbers are finite; NaN would make rankings silently wrong."""
    if not (np.isfinite(feature).all() and np.isfinite(class_probabilities).all()):
        raise ValueError("a feature or a class probability is NaN or infinite; such an image cannot be ranked")
