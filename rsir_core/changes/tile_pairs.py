"""Pair each tile of the global grid with the last one before it of the same cell."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas
from rsir_core.arrays import Doubles, Floats, Ints

MIN_PAIRS: Final = 30  # of the same two days, from which on these have a shift and a threshold of their own
COLUMNS: Final = (schemas.IMAGE_ID, schemas.CELL, schemas.COVERED, schemas.TIME, schemas.FEATURE)  # that are read

Days = npt.NDArray[np.datetime64]


class TilePairs(NamedTuple):
    """Hold pairs of tiles of the same cell, from one day to the next day of that cell.

    Attributes:
        before: (n,) row of the earlier tile.
        after: (n,) row of the later tile.
        group: (n,) number of the pair's two days, from 0; -1: fewer than `MIN_PAIRS` pairs have them.
        distance: (n,) Euclidean distance of their features, less the shift that all pairs of the group have in common.
    """

    before: Ints
    after: Ints
    group: Ints
    distance: Doubles


def pair_tiles(rows: pa.Table, min_covered: float) -> TilePairs:
    """Pair the tiles of each cell in order of their days.

    Of several tiles of a cell on one day, the one that shows most of the cell counts. Where many pairs have the same
    two days, the median of their differences is taken off each: season, light and sensor move all tiles alike, a change
    on the ground moves few.

    Args:
        rows: with `COLUMNS`, in any order; those without a cell or a time are left out.
        min_covered: share of the cell from which on a tile counts.
    """
    place = np.flatnonzero(
        pc.and_(rows[schemas.CELL].is_valid(), rows[schemas.TIME].is_valid()).to_numpy()
        & (pc.fill_null(rows[schemas.COVERED], 0).to_numpy() >= np.float32(min_covered))
    )
    kept = rows.take(pa.array(place))
    days = kept[schemas.TIME].to_numpy().astype("datetime64[D]")
    cell = pc.rank(kept[schemas.CELL], tiebreaker="dense").to_numpy().astype(np.int64)
    order = np.lexsort(
        (pc.rank(kept[schemas.IMAGE_ID]).to_numpy(), -kept[schemas.COVERED].to_numpy(), days, cell)
    )  # by cell, then day, best first
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(cell[order]) != 0) | (np.diff(days[order]) != np.timedelta64(0, "D"))
    order = order[is_first]
    same = np.flatnonzero(np.diff(cell[order]) == 0)
    before, after = order[same], order[same + 1]
    group = _groups(days[before], days[after])
    feature = schemas.to_matrix(kept[schemas.FEATURE])
    difference = _without_shift(feature[after] - feature[before], group)
    return TilePairs(place[before], place[after], group, np.linalg.norm(difference, axis=1).astype(np.float64))


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
