"""Clusters within classes: contiguous runs of rows, each with a bound on the weighted distance of every row in it.

For a query q, every row r of cluster j satisfies, by equations 6 to 8 and the triangle inequality,
WD(q, r) ≥ (1 − p_q[c_j]) · min_complement_j[c_q] · max(0, ‖f_q − centre_j‖ − radius_j).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

TRAINED_ON: Final = 64  # rows per cluster that place its centre; more move it by less than they cost
ITERATIONS: Final = 10


@dataclass(frozen=True)
class Clusters:
    """m runs of rows that lie one after the other.

    Attributes:
        count: (m,) int64, rows of each run, none empty.
        of_class: (m,) int64, the one class of its rows.
        centre: (m, K) float32.
        radius: (m,) float32, at least the distance from the centre to each row.
        min_complement: (m, C) float32, at most the complement of each row, class by class.
    """

    count: Ints
    of_class: Ints
    centre: Floats
    radius: Floats
    min_complement: Floats

    def to_bytes(self) -> bytes:
        """As one safetensors file, which the footer of a feature shard carries."""
        data: bytes = save({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Clusters":
        """The inverse of `to_bytes`."""
        return cls(**load(data))

    @classmethod
    def join(cls, parts: "Sequence[Clusters]") -> "Clusters":
        """Of rows that follow each other."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def keep(self, rows: npt.NDArray[np.bool_]) -> "Clusters":
        """Once only some rows are left: radius and complements still hold, runs without rows go."""
        count = np.add.reduceat(rows, self._start(), dtype=np.int64) if len(rows) else self.count
        return Clusters(count, *(getattr(self, f.name) for f in fields(self)[1:]))._without_empty()

    def _start(self) -> Ints:
        start: Ints = np.concatenate([[0], np.cumsum(self.count)[:-1]])
        return start

    def _without_empty(self) -> "Clusters":
        some = self.count > 0
        return Clusters(*(getattr(self, f.name)[some] for f in fields(self)))


def make_clusters(feature: Floats, of_class: Ints, complements: Floats) -> tuple[Ints, Clusters]:
    """Group rows by class and, within a class of n rows, into about √n clusters by k-means.

    Args:
        feature: (n, K) float32.
        of_class: (n,), each row's most probable class.
        complements: (n, C) float32.

    Returns:
        the order (n,) in which the rows make contiguous runs, and the runs.
    """
    runs = [run for c in np.unique(of_class) for run in _runs(np.flatnonzero(of_class == c), feature)]
    centre = np.stack([feature[run].mean(axis=0, dtype=np.float64) for run in runs]).astype(np.float32)
    return np.concatenate(runs), Clusters(
        count=np.array([len(run) for run in runs]),
        of_class=of_class[[run[0] for run in runs]].astype(np.int64),
        centre=centre,
        radius=np.array([_radius(feature[run], c) for run, c in zip(runs, centre, strict=True)], np.float32),
        min_complement=np.stack([complements[run].min(axis=0) for run in runs]),
    )


def _runs(members: Ints, feature: Floats) -> list[Ints]:
    """The rows of one class, cluster by cluster."""
    k = math.isqrt(len(members))
    if k < 2:
        return [members]
    points = feature[members].astype(np.float64)
    sample = points[np.random.default_rng(0).permutation(len(points))[: TRAINED_ON * k]]
    means = KMeans(min(k, len(np.unique(sample, axis=0))), n_init=1, max_iter=ITERATIONS, random_state=0).fit(sample)
    label = means.predict(points)
    runs = np.split(members[np.argsort(label, kind="stable")], np.cumsum(np.bincount(label))[:-1])
    return [run for run in runs if len(run)]


def _radius(feature: Floats, centre: Floats) -> np.float32:
    """Rounded up by more than the distance's own rounding."""
    farthest = cdist(feature, centre[None]).max() * (1 + 1e-6)
    return np.nextafter(np.float32(farthest), np.float32(np.inf))
