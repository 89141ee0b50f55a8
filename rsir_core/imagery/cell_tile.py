"""Read what a scene shows of a cell of the global grid, resampled to the cell's own pixels.

All scenes' tiles of a cell so have the same pixels on the ground, whatever reference system and resolution the scenes
have. Only the blocks around the cell are read, of the overview that is fine enough.
"""

from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from pyproj import Transformer
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from rsir_core.arrays import Doubles
from rsir_core.geo.acquisition_time import time_of
from rsir_core.geo.cells import CRS, Bounds, bounds_of, footprint_of_cell
from rsir_core.geo.footprint import edge
from rsir_core.geo.placement import Placement, placement_of
from rsir_core.imagery.rgb import (
    Decoded,
    RasterRead,
    check_blocks,
    check_size,
    has_silent_nodata,
    refused,
    rgb_and_valid,
)
from rsir_core.imagery.tile_uri import CellTile, bands_of

MAX_FINER: Final = 64  # times: how much finer than the tile's pixels the scene is resampled before these are averaged


class CellRead(NamedTuple):
    """Hold what was read of a cell.

    Attributes:
        decoded: its pixels and what is known of them.
        window: the part of the scene that meets the cell, in pixels of the scene.
        covered: share of the cell's pixels that have data, 0 to 1.
    """

    decoded: Decoded
    window: Window
    covered: float


def read_cell(dataset: Any, tile: CellTile, max_pixels: int, around: float = 0) -> CellRead:
    """Read a cell of an open scene; it is black where the scene has no data.

    Args:
        dataset: open rasterio dataset of the scene.
        tile: names the cell.
        max_pixels: limit of pixels that may be held.
        around: what to add on each side, as a share of the cell's side.

    Raises:
        ImageError: stage `decode`; kind `unsupported`, `too_large` or `no_data`.
    """
    name, (width, height) = str(tile), (round(n * (1 + 2 * around)) for n in tile.size)
    check_size(name, width * height, max_pixels)
    bands = bands_of(dataset, tile.recipe.bands, name)
    check_blocks(dataset, bands, name, max_pixels)
    crs = check_placed(dataset, name).crs
    left, bottom, right, top = bounds_of(tile.cell)
    more = around * (right - left)
    bounds = left - more, bottom - more, right + more, top + more
    window = window_of(dataset, bounds)
    finer = min(MAX_FINER, max(1, round(max(window.width / width, window.height / height))))
    transform = from_bounds(*bounds, width * finer, height * finer)
    palette = dataset.colorinterp[bands[0] - 1] == ColorInterp.palette
    silent = {"src_nodata": 0, "UNIFIED_SRC_NODATA": "YES"} if has_silent_nodata(dataset, bands) else {}
    with WarpedVRT(
        dataset, crs=CRS, transform=transform, width=width * finer, height=height * finer,
        resampling=Resampling.nearest if palette else Resampling.bilinear,
        add_alpha=ColorInterp.alpha not in dataset.colorinterp, **silent,
    ) as warped:  # fmt: skip
        view = RasterRead(shape=(height, width) if finer > 1 else None, stretch=tile.recipe.stretch)
        pixels, notes, valid = rgb_and_valid(warped, bands, name, view)
    decoded = Decoded(pixels, notes, time_of(dataset), footprint_of_cell(tile.cell, crs))
    return CellRead(decoded, _within(window, dataset), float(np.any(valid, axis=0).mean()))


def check_placed(dataset: Any, name: str) -> Placement:
    """Check that a scene has a place on the grid, and return how it is placed.

    Raises:
        ImageError: `unsupported`.
    """
    placement = placement_of(dataset)
    if placement is None:
        what = "is not georeferenced" if dataset.crs is None else "is georeferenced, but not on earth"
        raise refused(name, "unsupported", f"{what}, so it has no place on the grid; leave it out, or omit --grid")
    if placement.note is not None:
        what = f"is {placement.note}; --grid takes scenes with an affine transform: warp it by gdalwarp"
        raise refused(name, "unsupported", what)
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        raise refused(name, "unsupported", "stores white as 0; convert it, or omit --grid")
    return placement


def to_pixels(dataset: Any, across: Doubles, up: Doubles) -> tuple[Doubles, Doubles]:
    """Convert metres of Web Mercator, (n,) each, to pixels of a scene, counted from its first pixel's outer corner.

    Points that the scene's reference system does not reach are infinite.
    """
    transformer = _from_web(dataset.crs.to_wkt())
    x, y = (np.asarray(values) for values in transformer.transform(across, up, errcheck=False))
    a, b, c, d, e, f, *_ = ~dataset.transform
    with np.errstate(invalid="ignore"):
        return a * x + b * y + c, d * x + e * y + f


@lru_cache(64)
def _from_web(wkt: str) -> Transformer:
    return Transformer.from_crs(CRS, wkt, always_xy=True)


def window_of(dataset: Any, bounds: Bounds) -> Window:
    """Bound a rectangle of Web Mercator in pixels of a scene, beyond its edges too."""
    left, bottom, right, top = bounds
    columns, rows = to_pixels(dataset, *edge(left, bottom, right - left, top - bottom))
    there = np.isfinite(columns) & np.isfinite(rows)
    if not there.any():
        return Window(0, 0, 0, 0)
    low_x, low_y = np.floor(columns[there].min()), np.floor(rows[there].min())
    return Window(
        int(low_x), int(low_y), int(np.ceil(columns[there].max()) - low_x), int(np.ceil(rows[there].max()) - low_y)
    )


def _within(window: Window, dataset: Any) -> Window:
    """Cut a window to the scene."""
    x, y, width, height = window.flatten()
    left, right = (min(max(n, 0), dataset.width) for n in (x, x + width))
    top, bottom = (min(max(n, 0), dataset.height) for n in (y, y + height))
    return Window(left, top, right - left, bottom - top)
