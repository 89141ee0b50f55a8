"""Clusters within classes: contiguous runs of rows, each with a bound on the weighted distance of every row in it.

For a query q, every row r of cluster j satisfies, by equations 6 to 8 and the triangle inequality,
WD(q, r) ≥ (1 − p_q[c_j]) · min_complement_j[c_q] · max(0, ‖f_q − centre_j‖ − radius_j).

Neighbouring clusters of a class form groups, for which the same bound holds, so most clusters are never visited.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load, save

from rsir_core import schemas
from rsir_core.arrays import Doubles, Floats, Ints, Mask

NO_TIME: Final = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)
NO_BBOX: Final = (np.inf, np.inf, -np.inf, -np.inf)
MEAN_ROWS: Final = 256  # per cluster, at most; in large classes 2√n clusters would be too wide to be skipped
SAMPLE_ROWS: Final = 16  # per cluster, for k-means; more rows hardly move the centres
ITERATIONS: Final = 10
BLOCK: Final = 1 << 16  # rows
CONFIDENCE_SCALE: Final = 0.2  # distance of rows whose complements differ by a factor of e, in extents of the class


@dataclass(frozen=True)
class Ranges:
    """Hold the ranges of time and place of m runs of rows, or of m rows; an empty range runs from high to low.

    Attributes:
        time: (m, 2) int64, first and last, in microseconds since 1970.
        bbox: (m, 4) float64, degrees: xmin, ymin, xmax, ymax; all longitudes for what crosses the antimeridian.
    """

    time: Ints
    bbox: Doubles

    @classmethod
    def of(cls, table: pa.Table) -> "Ranges":
        """Build the ranges of single rows from their columns `time` and `bbox`."""
        time = table[schemas.TIME].cast(pa.int64())
        low, high = NO_TIME
        bbox = table[schemas.BBOX].combine_chunks()
        edges = (np.asarray(pc.struct_field(bbox, [i]).fill_null(np.nan)) for i in range(len(NO_BBOX)))
        west, south, east, north = (np.where(np.isnan(e), none, e) for e, none in zip(edges, NO_BBOX, strict=True))
        over = (west > east) & np.isfinite(west)
        west, east = np.where(over, -180.0, west), np.where(over, 180.0, east)
        return cls(
            np.stack([time.fill_null(low).to_numpy(), time.fill_null(high).to_numpy()], axis=1),
            np.stack([west, south, east, north], axis=1),
        )

    def of_runs(self, start: Ints) -> "Ranges":
        """Merge rows to the ranges of runs, which begin at `start`, (m,)."""
        low, high = np.minimum.reduceat, np.maximum.reduceat
        return Ranges(
            np.stack([low(self.time[:, 0], start), high(self.time[:, 1], start)], axis=1),
            np.concatenate([low(self.bbox[:, :2], start), high(self.bbox[:, 2:], start)], axis=1),
        )

    def take(self, order: Ints) -> "Ranges":
        """Return the ranges of the given rows, in that order."""
        return Ranges(self.time[order], self.bbox[order])

    @classmethod
    def none(cls, m: int) -> "Ranges":
        """Return the ranges of rows without time and place."""
        return cls(np.tile(np.array(NO_TIME), (m, 1)), np.tile(np.array(NO_BBOX), (m, 1)))


@dataclass(frozen=True)
class Clusters:
    """m contiguous runs of rows, each with the bounds that a search needs.

    Attributes:
        count: (m,) int64, rows of each run, at least 1.
        group: (m,) int64, number of the group of adjacent runs that are near each other.
        of_class: (m,) int64, the class of all its rows.
        centre: (m, K) float32.
        radius: (m,) float32, at least the distance from the centre to each row.
        min_complement: (m, C) float32, at most the complement of each row, class by class.
        time: see `Ranges`.
        bbox: see `Ranges`.
    """

    count: Ints
    group: Ints
    of_class: Ints
    centre: Floats
    radius: Floats
    min_complement: Floats
    time: Ints
    bbox: Doubles

    @property
    def start(self) -> Ints:
        """(m,) first row of each run."""
        start: Ints = np.cumsum(self.count) - self.count
        return start

    @property
    def group_start(self) -> Ints:
        """(g,) first run of each group."""
        return np.flatnonzero(np.diff(self.group, prepend=-1))

    @property
    def group_size(self) -> Ints:
        """(g,) number of runs of each group."""
        return np.diff(np.append(self.group_start, len(self.group)))

    @property
    def ranges(self) -> Ranges:
        """The ranges of the runs."""
        return Ranges(self.time, self.bbox)

    def to_bytes(self) -> bytes:
        """Encode as a safetensors file, which is stored in the footer of a features file."""
        data: bytes = save({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Clusters":
        """Decode what `to_bytes` wrote."""
        return cls(**load(data))

    @classmethod
    def none(cls, dimensions: int, class_count: int) -> "Clusters":
        """Return clusters without rows, for features of K dimensions and C classes."""
        nothing = np.empty(0, np.int64)
        centre, complement = (np.empty((0, d), np.float32) for d in (dimensions, max(class_count, 1)))
        ranges = Ranges.none(0)
        return cls(nothing, nothing, nothing, centre, np.empty(0, np.float32), complement, ranges.time, ranges.bbox)

    @classmethod
    def join(cls, parts: "Sequence[Clusters]") -> "Clusters":
        """Concatenate the clusters of consecutive tables of rows."""
        joined = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        changes = [np.diff(part.group, prepend=-1) != 0 for part in parts]  # each part begins a new group
        return cls(**{**joined, "group": np.cumsum(np.concatenate(changes)) - 1})

    def keep(self, rows: Mask) -> "Clusters":
        """Restrict the clusters to the rows kept, (n,) bool: bounds still hold, and runs without rows are dropped."""
        count = np.add.reduceat(rows, self.start, dtype=np.int64) if len(rows) else self.count
        some = count > 0
        return replace(self, **{f.name: getattr(self, f.name)[some] for f in fields(self)} | {"count": count[some]})

    def from_centres(self, feature: Floats) -> Floats:
        """Compute each row's distance from its cluster's centre, (n,) float32, rounded to nearest."""
        distance: Floats = _distances(feature, self.centre, self.count).astype(np.float32)
        return distance

    def around(self, feature: Floats) -> "Clusters":
        """Keep the runs, with the centres and radii of other features of the same rows (n, K)."""
        if not len(self.count):
            return self
        centre = _centres(feature, self.count)
        return replace(self, centre=centre, radius=_radii(feature, centre, self.count))

    def groups(self) -> "Clusters":
        """Merge the clusters of each group into one cluster of all its rows."""
        if not len(self.count):
            return self
        begins = self.group_start
        count = np.add.reduceat(self.count, begins)
        centre = np.add.reduceat(self.centre.astype(np.float64) * self.count[:, None], begins) / count[:, None]
        near = centre.astype(np.float32)
        radius = _radii(self.centre, near, self.group_size, self.radius)
        ranges = self.ranges.of_runs(begins)
        return Clusters(
            count, self.group[begins], self.of_class[begins], near, radius,
            np.minimum.reduceat(self.min_complement, begins), ranges.time, ranges.bbox,
        )  # fmt: skip


def make_clusters(
    feature: Floats, of_class: Ints, complements: Floats, ranges: Ranges | None = None
) -> tuple[Ints, Clusters]:
    """Group rows by class and, within a class of n rows, into about 2√n clusters by k-means.

    Args:
        feature: (n, K) float32.
        of_class: (n,), each row's most probable class.
        complements: (n, C) float32.
        ranges: of the rows; None: no row has a time or a place.

    Returns:
        The order (n,) in which the rows form contiguous runs, and the runs.
    """
    if len(feature) == 0:
        return np.empty(0, np.int64), Clusters.none(feature.shape[1], complements.shape[1])
    groups = [
        group
        for c in np.unique(of_class)
        for group in _groups(np.flatnonzero(of_class == c), feature, complements[:, c])
    ]
    runs = [run for group in groups for run in group]
    order, count = np.concatenate(runs), np.array([len(run) for run in runs])
    start = np.cumsum(count) - count
    centre = _centres(feature[order], count)
    # Within a run the most confident rows come first, so that a query of that class reads a prefix of the run only.
    complement = complements[order, np.repeat(of_class[order[start]], count)]
    order = order[np.lexsort((complement, np.repeat(start, count)))]
    spanned = (Ranges.none(len(order)) if ranges is None else ranges.take(order)).of_runs(start)
    return order, Clusters(
        count=count,
        group=np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
        of_class=of_class[order[start]].astype(np.int64),
        centre=centre,
        radius=_radii(feature[order], centre, count),
        min_complement=np.minimum.reduceat(complements[order], start),
        time=spanned.time,
        bbox=spanned.bbox,
    )


def _groups(members: Ints, feature: Floats, complement: Floats) -> list[list[Ints]]:
    """Cluster the n rows of one class into about 2√n clusters, in about as many groups as a group has clusters.

    Rows of one cluster look alike and have similar confidence, since a cluster's bound uses its most confident row.
    """
    n = len(members)
    points = feature[members].astype(np.float64)
    confidence = np.log(complement[members].astype(np.float64))
    extent = math.sqrt(points.var(axis=0).sum())
    points = np.column_stack([points, CONFIDENCE_SCALE * extent * (confidence - confidence.mean())])
    runs = _parts(points, max(2 * math.isqrt(n), n // MEAN_ROWS))
    count = np.array([len(run) for run in runs])
    centre = _centres(points[np.concatenate(runs)], count)
    runs = [members[run] for run in runs]
    return [[runs[i] for i in part] for part in _parts(centre, math.isqrt(len(runs)))]


def _parts(points: Floats | Doubles, k: int) -> list[Ints]:
    """Split points into at most k parts by k-means; returns positions."""
    if k < 2:
        return [np.arange(len(points))]
    from sklearn.cluster import KMeans  # noqa: PLC0415 -- a second that readers of an index need not wait

    points = points.astype(np.float64)
    sample = points[np.random.default_rng(0).permutation(len(points))[: SAMPLE_ROWS * k]]
    means = KMeans(min(k, len(np.unique(sample, axis=0))), n_init=1, max_iter=ITERATIONS, random_state=0).fit(sample)
    label = means.predict(points)
    parts = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    return [part for part in parts if len(part)]


def _centres(points: Floats | Doubles, count: Ints) -> Floats:
    """Compute the mean of each run of points, (m, K)."""
    total = np.add.reduceat(points, np.cumsum(count) - count, dtype=np.float64)
    centre: Floats = (total / count[:, None]).astype(np.float32)
    return centre


def _radii(points: Floats, centre: Floats, count: Ints, own_radius: Floats | float = 0.0) -> Floats:
    """Compute each run's largest distance from its centre, (m,); a point may be a ball with a radius of its own."""
    reach = _distances(points, centre, count) + own_radius
    return _rounded_up(np.maximum.reduceat(reach, np.cumsum(count) - count))


def _distances(points: Floats, centre: Floats, count: Ints) -> Doubles:
    """Compute each point's distance from the centre of its run, (n,) float64; by blocks, to save memory."""
    distances, run = np.empty(len(points)), np.repeat(np.arange(len(count)), count)
    for first in range(0, len(points), BLOCK):
        block = slice(first, first + BLOCK)
        difference = points[block].astype(np.float64) - centre[run[block]]
        distances[block] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return distances


def _rounded_up(radius: Doubles) -> Floats:
    """Round up by more than the rounding error of a distance."""
    up: Floats = np.nextafter((radius * (1 + 1e-6)).astype(np.float32), np.float32(np.inf))
    return up
