"""How many footprints lie where: counts in the cells of a grid over an index's bounds."""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas
from rsir_core.arrays import Ints
from rsir_core.geo.bounding_box import BoundingBox

CELLS: Final = 64  # at most that are needed to span the bounds in either direction, so at most 65 × 65 in all
MAX_LEVEL: Final = 24  # cells of 2 metres


class CellCounts(NamedTuple):
    """Count footprints by the cell that their middle lies in; cells without any are left out.

    Attributes:
        degrees: side of a cell.
        column: (m,) int64, counted from 180° west.
        row: (m,) int64, counted from 90° south.
        images: (m,) int64, how many footprints.
    """

    degrees: float
    column: Ints
    row: Ints
    images: Ints


def cell_size(bounds: BoundingBox) -> float:
    """Choose the side of cells, in degrees: the smallest 360/2^n of which few span these bounds."""
    span = max(bounds.east - bounds.west, bounds.north - bounds.south, 360 / 2**MAX_LEVEL)
    return 360 / 2.0 ** min(MAX_LEVEL, math.floor(math.log2(360 * CELLS / span)))


def count_cells(bbox: pa.ChunkedArray, degrees: float) -> CellCounts:
    """Count footprints by cells; rows without a footprint count nowhere.

    Args:
        bbox: bounds of n footprints, as in the column `bbox`.
        degrees: side of a cell.
    """
    found = bbox.drop_null().combine_chunks()
    west, south, east, north = (np.asarray(pc.struct_field(found, name)) for name in schemas.BBOX_FIELDS)
    over = np.where(west > east, 360.0, 0.0)  # across the antimeridian
    longitude = ((west + east + over) / 2 + 180) % 360
    column = np.floor(longitude / degrees).astype(np.int64)
    row = np.floor(((south + north) / 2 + 90) / degrees).astype(np.int64)
    return _grouped(degrees, column, row, np.ones(len(row), np.int64))


def merge_cells(parts: Sequence[CellCounts]) -> CellCounts:
    """Sum the counts of all shares, whose cells are of the same size."""
    return _grouped(parts[0].degrees, *(np.concatenate([part[i] for part in parts]) for i in (1, 2, 3)))


def _grouped(degrees: float, column: Any, row: Any, count: Any) -> CellCounts:
    """Sum counts by cell."""
    columns = 2 * round(360 / degrees)  # more than there are, so that the number of a cell is its own
    cells, place = np.unique(row * columns + column, return_inverse=True)
    sums = np.zeros(len(cells), np.int64)
    np.add.at(sums, place, count)
    return CellCounts(degrees, cells % columns, cells // columns, sums)
