"""Cells of one global grid, which is the same for all scenes: tiles of Web Mercator, named by their quadkeys.

A quadkey has a digit per level of zoom; that of a cell begins with that of the larger cell around it.
"""

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely

from rsir_core.arrays import Doubles
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.geo.footprint import Footprint

if TYPE_CHECKING:
    from morecantile import TileMatrixSet

CRS: Final = "EPSG:3857"
Bounds = tuple[float, float, float, float]  # left, bottom, right, top, in metres of Web Mercator


@cache
def _grid() -> "TileMatrixSet":
    import morecantile  # noqa: PLC0415 -- takes 0.2 s, and many archives are not cut along the grid

    return morecantile.tms.get("WebMercatorQuad")


def cells_in(bbox: BoundingBox, zoom: int) -> list[str]:
    """List the cells that meet a bounding box, which may cross the antimeridian; none beyond 85.05° north or south."""
    grid = _grid()
    low, high = grid.bbox.bottom, grid.bbox.top
    if bbox.north <= low or bbox.south >= high:
        return []
    south, north = max(bbox.south, low), min(bbox.north, high)
    return [grid.quadkey(tile) for tile in grid.tiles(bbox.west, south, bbox.east, north, [zoom])]


def bounds_of(cell: str) -> Bounds:
    """Return the bounds of a cell in `CRS`."""
    found = _grid().xy_bounds(_grid().quadkey_to_tile(cell))
    return found.left, found.bottom, found.right, found.top


def footprint_of_cell(cell: str, crs: str) -> Footprint:
    """Return the ground of a cell; `crs` is that of the scene that shows it."""
    found = _grid().bounds(_grid().quadkey_to_tile(cell))
    bbox = BoundingBox(found.left, found.bottom, found.right, found.top)
    return Footprint(bbox, shapely.to_wkb(shapely.box(*bbox)), crs)


def lattice_of(cells: list[str], side: int) -> tuple[Doubles, Doubles]:
    """Return the middles of `side` × `side` equal parts of each cell, (cells × side², ) each, in metres of `CRS`."""
    bounds = np.array([bounds_of(cell) for cell in cells]).reshape(-1, 4)
    steps = (np.arange(side) + 0.5) / side
    across, up = (bounds[:, [i]] + steps * (bounds[:, [i + 2]] - bounds[:, [i]]) for i in (0, 1))
    xs, ys = np.broadcast_arrays(across[:, None, :], up[:, :, None])
    return xs.ravel(), ys.ravel()
