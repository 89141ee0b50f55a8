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
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load, save
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from rsir_core import rows

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NO_TIME: Final = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)
NO_BBOX: Final = (np.inf, np.inf, -np.inf, -np.inf)
TRAINED_ON: Final = 64  # rows per cluster that place its centre; more move it by less than they cost
ITERATIONS: Final = 10


@dataclass(frozen=True)
class Ranges:
    """What the rows of m runs (or of one each) span in time and on earth; empty, from high to low, where none has any.

    Attributes:
        time: (m, 2) int64, microseconds since 1970: first and last.
        bbox: (m, 4) float64, degrees: xmin, ymin, xmax, ymax; of what crosses the antimeridian, all longitudes.
    """

    time: Ints
    bbox: Doubles

    @classmethod
    def of(cls, table: pa.Table) -> "Ranges":
        """Of single rows, with the columns `time` and `bbox`."""
        time = table[rows.TIME].cast(pa.int64())
        low, high = NO_TIME
        bbox = table[rows.BBOX].combine_chunks()
        edges = [pc.fill_null(pc.struct_field(bbox, [i]), edge) for i, edge in enumerate(NO_BBOX)]
        west, south, east, north = (np.asarray(edge) for edge in edges)
        over = (west > east) & np.isfinite(west)
        west, east = np.where(over, -180.0, west), np.where(over, 180.0, east)
        return cls(
            np.stack([time.fill_null(low).to_numpy(), time.fill_null(high).to_numpy()], axis=1),
            np.stack([west, south, east, north], axis=1),
        )

    def of_runs(self, start: Ints) -> "Ranges":
        """Of runs of these rows, which begin at (m,) `start`."""
        low, high = np.minimum.reduceat, np.maximum.reduceat
        return Ranges(
            np.stack([low(self.time[:, 0], start), high(self.time[:, 1], start)], axis=1),
            np.concatenate([low(self.bbox[:, :2], start), high(self.bbox[:, 2:], start)], axis=1),
        )

    @classmethod
    def none(cls, m: int) -> "Ranges":
        """Of rows without time and place."""
        return cls(np.tile(np.array(NO_TIME), (m, 1)), np.tile(np.array(NO_BBOX), (m, 1)))


@dataclass(frozen=True)
class Clusters:
    """m runs of rows that lie one after the other.

    Attributes:
        count: (m,) int64, rows of each run, none empty.
        of_class: (m,) int64, the one class of its rows.
        centre: (m, K) float32.
        radius: (m,) float32, at least the distance from the centre to each row.
        min_complement: (m, C) float32, at most the complement of each row, class by class.
        time: see `Ranges`.
        bbox: see `Ranges`.
    """

    count: Ints
    of_class: Ints
    centre: Floats
    radius: Floats
    min_complement: Floats
    time: Ints
    bbox: Doubles

    @property
    def ranges(self) -> Ranges:
        """What the rows of each run span."""
        return Ranges(self.time, self.bbox)

    def to_bytes(self) -> bytes:
        """As one safetensors file, which the footer of a feature shard carries."""
        data: bytes = save({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Clusters":
        """The inverse of `to_bytes`."""
        return cls(**load(data))

    @classmethod
    def none(cls, dimensions: int, class_count: int) -> "Clusters":
        """Of no rows, of features of K dimensions and C classes."""
        nothing = np.empty(0, np.int64)
        centre, complement = (np.empty((0, d), np.float32) for d in (dimensions, class_count))
        return cls(
            nothing, nothing, centre, np.empty(0, np.float32), complement, np.empty((0, 2), np.int64), np.empty((0, 4))
        )

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


def make_clusters(
    feature: Floats, of_class: Ints, complements: Floats, ranges: Ranges | None = None
) -> tuple[Ints, Clusters]:
    """Group rows by class and, within a class of n rows, into about √n clusters by k-means.

    Args:
        feature: (n, K) float32.
        of_class: (n,), each row's most probable class.
        complements: (n, C) float32.
        ranges: of each row; None: they have neither time nor place.

    Returns:
        the order (n,) in which the rows make contiguous runs, and the runs.
    """
    if len(feature) == 0:
        return np.empty(0, np.int64), Clusters.none(feature.shape[1], complements.shape[1])
    runs = [run for c in np.unique(of_class) for run in _runs(np.flatnonzero(of_class == c), feature)]
    centre = np.stack([feature[run].mean(axis=0, dtype=np.float64) for run in runs]).astype(np.float32)
    order, count = np.concatenate(runs), np.array([len(run) for run in runs])
    ordered = Ranges.none(len(order)) if ranges is None else Ranges(ranges.time[order], ranges.bbox[order])
    spanned = ordered.of_runs(np.cumsum(count) - count)
    return order, Clusters(
        count=count,
        of_class=of_class[[run[0] for run in runs]].astype(np.int64),
        centre=centre,
        radius=np.array([_radius(feature[run], c) for run, c in zip(runs, centre, strict=True)], np.float32),
        min_complement=np.stack([complements[run].min(axis=0) for run in runs]),
        time=spanned.time,
        bbox=spanned.bbox,
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
    radius: np.float32 = np.nextafter(np.float32(farthest), np.float32(np.inf))
    return radius
