"""Clusters within classes: contiguous runs of rows, each with a bound on the weighted distance of every row in it.

For a query q, every row r of cluster j satisfies, by equations 6 to 8 and the triangle inequality,
WD(q, r) ≥ (1 − p_q[c_j]) · min_complement_j[c_q] · max(0, ‖f_q − centre_j‖ − radius_j).

Clusters lie in groups of near ones of their class, for which the same holds: so most clusters are not looked at.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load, save

from rsir_core import schemas

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NO_TIME: Final = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)
NO_BBOX: Final = (np.inf, np.inf, -np.inf, -np.inf)
MOST_ROWS: Final = 256  # of a cluster, in the mean; where classes are large 2√n would make balls too wide to pass over
TRAINED_ON: Final = 16  # rows per cluster that place its centre; more move it by less than they cost
ITERATIONS: Final = 10
BLOCK: Final = 1 << 16  # rows
SURENESS: Final = 0.2  # how far apart rows are whose complements differ by a factor of e, in extents of their class


@dataclass(frozen=True)
class Ranges:
    """Span m runs of rows (or single rows) in time and on earth; from high to low where none has a time or place.

    Attributes:
        time: (m, 2) int64, microseconds since 1970: first and last.
        bbox: (m, 4) float64, degrees: xmin, ymin, xmax, ymax; of what crosses the antimeridian, all longitudes.
    """

    time: Ints
    bbox: Doubles

    @classmethod
    def of(cls, table: pa.Table) -> "Ranges":
        """Build from single rows, with the columns `time` and `bbox`."""
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
        """Merge to the ranges of runs of these rows, which begin at (m,) `start`."""
        low, high = np.minimum.reduceat, np.maximum.reduceat
        return Ranges(
            np.stack([low(self.time[:, 0], start), high(self.time[:, 1], start)], axis=1),
            np.concatenate([low(self.bbox[:, :2], start), high(self.bbox[:, 2:], start)], axis=1),
        )

    def take(self, order: Ints) -> "Ranges":
        """Take these of the rows, in this order."""
        return Ranges(self.time[order], self.bbox[order])

    @classmethod
    def none(cls, m: int) -> "Ranges":
        """Return the ranges of rows without time and place."""
        return cls(np.tile(np.array(NO_TIME), (m, 1)), np.tile(np.array(NO_BBOX), (m, 1)))


@dataclass(frozen=True)
class Clusters:
    """m runs of rows that lie one after the other.

    Attributes:
        count: (m,) int64, rows of each run, none empty.
        group: (m,) int64; the same number for runs that follow each other and are near to each other.
        of_class: (m,) int64, the one class of its rows.
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
        """(m,) the first row of each run."""
        start: Ints = np.cumsum(self.count) - self.count
        return start

    @property
    def group_start(self) -> Ints:
        """(g,) the first run of each group."""
        return np.flatnonzero(np.diff(self.group, prepend=-1))

    @property
    def group_size(self) -> Ints:
        """(g,) runs of each group."""
        return np.diff(np.append(self.group_start, len(self.group)))

    @property
    def ranges(self) -> Ranges:
        """Return what the rows of each run span."""
        return Ranges(self.time, self.bbox)

    def to_bytes(self) -> bytes:
        """Encode as one safetensors file, which the footer of a features file carries."""
        data: bytes = save({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Clusters":
        """Decode the inverse of `to_bytes`."""
        return cls(**load(data))

    @classmethod
    def none(cls, dimensions: int, class_count: int) -> "Clusters":
        """Return the clusters of no rows, of features of K dimensions and C classes."""
        nothing = np.empty(0, np.int64)
        centre, complement = (np.empty((0, d), np.float32) for d in (dimensions, class_count))
        ranges = Ranges.none(0)
        return cls(nothing, nothing, nothing, centre, np.empty(0, np.float32), complement, ranges.time, ranges.bbox)

    @classmethod
    def join(cls, parts: "Sequence[Clusters]") -> "Clusters":
        """Join clusters of rows that follow each other."""
        joined = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        changes = [np.diff(part.group, prepend=-1) != 0 for part in parts]  # each part begins with a group of its own
        return cls(**{**joined, "group": np.cumsum(np.concatenate(changes)) - 1})

    def keep(self, rows: npt.NDArray[np.bool_]) -> "Clusters":
        """Keep the clusters for a part of the rows: radius and complements still hold, runs without rows go."""
        count = np.add.reduceat(rows, self.start, dtype=np.int64) if len(rows) else self.count
        some = count > 0
        return replace(self, **{f.name: getattr(self, f.name)[some] for f in fields(self)} | {"count": count[some]})

    def from_centres(self, feature: Floats) -> Floats:
        """Measure how far each row is from its cluster's centre, (n,) float32, rounded to nearest."""
        away: Floats = _away(feature, self.centre, self.count).astype(np.float32)
        return away

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
        ranges: of each row; None: they have neither time nor place.

    Returns:
        the order (n,) in which the rows make contiguous runs, and the runs.
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
    # The surest first: what a query of their class must look at lies together then, and ends where no other can be.
    sure = complements[order, np.repeat(of_class[order[start]], count)]
    order = order[np.lexsort((sure, np.repeat(start, count)))]
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
    """Group the rows of one class: about 2√n clusters, in about as many groups as each has clusters.

    Near are rows that look alike and are about as sure of their class, since the bound is of the surest of a cluster.
    """
    n = len(members)
    points = feature[members].astype(np.float64)
    sure = np.log(complement[members].astype(np.float64))
    extent = math.sqrt(points.var(axis=0).sum())
    points = np.column_stack([points, SURENESS * extent * (sure - sure.mean())])
    runs = _parts(points, max(2 * math.isqrt(n), n // MOST_ROWS))
    count = np.array([len(run) for run in runs])
    centre = _centres(points[np.concatenate(runs)], count)
    runs = [members[run] for run in runs]
    return [[runs[i] for i in part] for part in _parts(centre, math.isqrt(len(runs)))]


def _parts(points: Floats | Doubles, k: int) -> list[Ints]:
    """Split points into at most k parts by k-means, as positions."""
    if k < 2:
        return [np.arange(len(points))]
    from sklearn.cluster import KMeans  # noqa: PLC0415 -- a second that readers of an index need not wait

    points = points.astype(np.float64)
    sample = points[np.random.default_rng(0).permutation(len(points))[: TRAINED_ON * k]]
    means = KMeans(min(k, len(np.unique(sample, axis=0))), n_init=1, max_iter=ITERATIONS, random_state=0).fit(sample)
    label = means.predict(points)
    parts = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    return [part for part in parts if len(part)]


def _centres(points: Floats | Doubles, count: Ints) -> Floats:
    """Average each run of so many points, (m, K)."""
    total = np.add.reduceat(points, np.cumsum(count) - count, dtype=np.float64)
    centre: Floats = (total / count[:, None]).astype(np.float32)
    return centre


def _radii(points: Floats, centre: Floats, count: Ints, around: Floats | float = 0.0) -> Floats:
    """Measure how far each run's points reach from its centre, with what is around each of them, (m,)."""
    reach = _away(points, centre, count) + around
    return _rounded_up(np.maximum.reduceat(reach, np.cumsum(count) - count))


def _away(points: Floats, centre: Floats, count: Ints) -> Doubles:
    """Measure how far each point is from the centre of its run, (n,) float64; by blocks, as float64 is large."""
    away, run = np.empty(len(points)), np.repeat(np.arange(len(count)), count)
    for first in range(0, len(points), BLOCK):
        block = slice(first, first + BLOCK)
        difference = points[block].astype(np.float64) - centre[run[block]]
        away[block] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return away


def _rounded_up(radius: Doubles) -> Floats:
    """Round up by more than the distance's own rounding."""
    up: Floats = np.nextafter((radius * (1 + 1e-6)).astype(np.float32), np.float32(np.inf))
    return up
