"""Exact search of rows in memory by the class-weighted distance (see `distance`); ties go to the smaller image id."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core.arrays import Doubles, Floats, Ints, Mask
from rsir_core.search.clusters import Clusters, make_clusters
from rsir_core.search.distance import classes, complements
from rsir_core.search.kernel import ClusterTree, candidates


@dataclass(frozen=True)
class Hits:
    """Hold the k best rows of a query, best first, with the factors of their weighted distances; arrays are (k,)."""

    rows: Ints  # positions
    weighted_distance: Doubles
    distance: Doubles
    query_weight: Doubles  # equation 6, or the least weight
    candidate_weight: Doubles  # equation 7, or the least weight

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
        euclidean: bool = False,
        least_weight: float = 0,
    ) -> Hits:
        """Find the k rows of smallest weighted distance, or all rows if there are fewer.

        Args:
            feature: the query's, (K,) float32.
            class_probabilities: the query's, (C,) float32.
            k: number of results, at least 1.
            allowed: (n,) bool, the rows to rank; None: all.
            euclidean: rank by the Euclidean distance alone; the factors are returned all the same.
            least_weight: what each of the two weights is at least, below 1, so that probabilities above its complement
                count alike.

        Raises:
            ValueError: k below 1, a least weight of 1, or arrays that do not fit the rows or are not finite.
        """
        self._check(feature, class_probabilities, k, allowed)
        if not 0 <= least_weight < 1:
            raise ValueError(f"the least weight is {least_weight}; it must be at least 0 and below 1")
        complement, query_class = complements(class_probabilities[None]), classes(class_probabilities[None])
        least = 1 if euclidean else least_weight
        found, _ = candidates(self._tree, (feature, complement[0], int(query_class[0])), k, allowed, least)
        hits = Hits(*found)
        key = hits.distance if euclidean else hits.weighted_distance
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
