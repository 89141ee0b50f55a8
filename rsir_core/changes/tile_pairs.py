"""Pair each tile of the global grid with an earlier one of the same cell, and measure how far it moved."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas
from rsir_core.arrays import Doubles, Floats, Ints
from rsir_core.changes.threshold import MIN_PAIRS, thresholds_of

COLUMNS: Final = (schemas.IMAGE_ID, schemas.CELL, schemas.COVERED, schemas.TIME, schemas.FEATURE)  # that are read

Days = npt.NDArray[np.datetime64]


class TilePairs(NamedTuple):
    """Hold pairs of tiles of the same cell, in order of cell and of the later tile's day.

    Attributes:
        before: (n,) row of the earlier tile.
        after: (n,) row of the later tile.
        distance: (n,) Euclidean distance of their features, less the shift that all pairs of these days have in common.
        threshold: (n,) distance from which on the place has changed; NaN: there are too few pairs to tell.
    """

    before: Ints
    after: Ints
    distance: Doubles
    threshold: Doubles


def pair_tiles(rows: pa.Table, min_covered: float, last: int, false_alarms: float) -> TilePairs:
    """Pair each tile with that of the last days of its cell to which its acquisition as a whole moved least.

    That is mostly a day of the same season and light. How far an acquisition moved is the median distance of all pairs
    of the two days, if these are `MIN_PAIRS` or more; where none of the last days has so many, the last one is taken.

    The median of the differences of all pairs of two days is taken off each: season, light and sensor move all tiles
    alike, a change on the ground moves few. Of several tiles of a cell on one day, the one that shows most counts.

    Args:
        rows: with `COLUMNS`, in any order; those without a cell or a time are left out.
        min_covered: share of the cell from which on a tile counts.
        last: number of earlier days of a cell that are looked at.
        false_alarms: see `threshold_of`.
    """
    place = np.flatnonzero(
        pc.and_(rows[schemas.CELL].is_valid(), rows[schemas.TIME].is_valid()).to_numpy()
        & (pc.fill_null(rows[schemas.COVERED], 0).to_numpy() >= np.float32(min_covered))
    )
    kept = rows.take(pa.array(place))
    days = kept[schemas.TIME].to_numpy().astype("datetime64[D]")
    before, after = _candidates(kept, days, last)
    group = _groups(days[before], days[after])
    feature = schemas.to_matrix(kept[schemas.FEATURE])
    difference = _without_shift(feature[after] - feature[before], group)
    distance = np.linalg.norm(difference, axis=1).astype(np.float64)
    threshold = thresholds_of(distance, group, false_alarms)
    best = _least_moved(after, distance, group)
    return TilePairs(place[before[best]], place[after[best]], distance[best], threshold[best])


def _candidates(kept: pa.Table, days: Days, last: int) -> tuple[Ints, Ints]:
    """Pair the tiles of each cell with those of the `last` days before; in order of cell and day, latest first."""
    cell = pc.rank(kept[schemas.CELL], tiebreaker="dense").to_numpy().astype(np.int64)
    name = pc.rank(kept[schemas.IMAGE_ID]).to_numpy()
    order = np.lexsort((name, -kept[schemas.COVERED].to_numpy(), days, cell))  # by cell and day, best first
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(cell[order]) != 0) | (np.diff(days[order]) != np.timedelta64(0, "D"))
    order = order[is_first]
    place, step = (axis.ravel() for axis in np.mgrid[0 : len(order), 1 : last + 1])
    place, earlier = place[step <= place], (place - step)[step <= place]
    same = cell[order[place]] == cell[order[earlier]]
    return order[earlier[same]], order[place[same]]


def _groups(before: Days, after: Days) -> Ints:
    """Number the pairs of days that at least `MIN_PAIRS` pairs have; -1 for others."""
    days = np.stack([before, after], axis=1).astype(np.int64).reshape(-1, 2)
    _, group, counts = np.unique(days, axis=0, return_inverse=True, return_counts=True)
    is_large = counts >= MIN_PAIRS
    numbers = np.where(is_large, np.cumsum(is_large) - 1, -1)
    found: Ints = numbers[group.reshape(-1)]
    return found


def _without_shift(difference: Floats, group: Ints) -> Floats:
    """Take the median (per dimension) of each group off its differences (n, K)."""
    left = difference.copy()
    for number in range(group.max(initial=-1) + 1):
        mine = group == number
        left[mine] -= np.median(difference[mine], axis=0)
    return left


def _least_moved(after: Ints, distance: Doubles, group: Ints) -> Ints:
    """Choose one pair of each later tile: of the group with the smallest median distance, else the first."""
    medians = [np.median(distance[group == number]) for number in range(group.max(initial=-1) + 1)]
    moved = np.array([*medians, np.inf])[group]  # the last is of no group, -1
    tile = np.cumsum(np.diff(after, prepend=-1) != 0)  # the pairs of a tile follow each other
    order = np.lexsort((np.arange(len(after)), moved, tile))
    found: Ints = order[np.diff(tile[order], prepend=-1) != 0]
    return found
