"""A look into the headers of large rasters: how each is to be cut into tiles, and which of these show something."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import cos, radians
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rasterio.enums import ColorInterp, MaskFlags

from rsir_core import rows
from rsir_core.errors import ImageError
from rsir_core.samples import (
    Mask,
    Range,
    View,
    check_blocks,
    mask_flags,
    named_bands,
    range_of,
    read_samples,
    refused,
)
from rsir_core.scenes import Cut, Size, Tiling, grid
from rsir_core.tiles import Recipe, bands_of, open_scene

AT_ONCE: Final = 8  # scenes: it mostly waits for a store
SAMPLE_SIDE: Final = 1024  # pixels, at most, of what a scene's range and its valid parts are found from
LEAST_VALID: Final = 0.5  # share of a tile's pixels below which it is skipped
_METRES_PER_DEGREE: Final = 111_320  # of latitude, on average; of longitude at the equator

_FAILURE: Final = [pa.field(name, pa.string()) for name in (rows.STAGE, rows.KIND, rows.MESSAGE)]
SURVEYED: Final = pa.schema([*rows.SCENES, *_FAILURE])


def survey_files(listing: pa.Table, tiling: Tiling, max_pixels: int) -> pa.Table:
    """Look into listed files (schema `rows.LISTING`); one row each, of schema `SURVEYED`."""
    listed = listing.select([rows.IMAGE_ID, rows.URI, rows.ETAG]).to_pylist()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(partial(_look_into, tiling=tiling, max_pixels=max_pixels), listed))
    return pa.table({name: [row.get(name) for row in found] for name in SURVEYED.names}, SURVEYED)


def _look_into(row: dict[str, Any], tiling: Tiling, max_pixels: int) -> dict[str, Any]:
    row = row | {"tiling": str(tiling)}
    try:
        cut = survey(row[rows.URI], tiling, max_pixels)
    except ImageError as error:
        return row | {rows.STAGE: error.stage, rows.KIND: error.kind, rows.MESSAGE: str(error)}
    return row if cut is None else row | cut.row()


def survey(uri: str, tiling: Tiling, max_pixels: int) -> Cut | None:
    """How a scene is cut, from its header; None: it fits into one tile, and is an image like others.

    Where samples are not 8-bit, or some can be nodata, an overview is read as well, or, where there is none, every
    block once, one after the other.

    Raises:
        ImageError: as `open_scene`; `unsupported`, also where metres are asked for and the scene is not georeferenced;
            `too_large`, where it has no blocks that can be read one by one.
    """
    with open_scene(uri) as dataset:
        scene = dataset.width, dataset.height
        wanted = (tiling.side, tiling.side) if tiling.metres is None else _on_the_ground(dataset, tiling.metres, uri)
        if scene[0] <= wanted[0] and scene[1] <= wanted[1]:
            return None
        tile = min(scene[0], wanted[0]), min(scene[1], wanted[1])
        step = max(1, round(tile[0] * (1 - tiling.overlap))), max(1, round(tile[1] * (1 - tiling.overlap)))
        chosen = tuple(named_bands(dataset, tiling.bands, uri)) if tiling.bands else ()
        bands = bands_of(dataset, chosen, uri)
        check_blocks(dataset, bands, uri, max_pixels)
        read = min(tile[0], tiling.side), min(tile[1], tiling.side)
        cut = Cut(scene, tile, step, Recipe(None if read == tile else read, chosen), None)
        stretch, kept = _sampled(dataset, bands, cut)
        return cut._replace(recipe=cut.recipe._replace(stretch=stretch), kept=None if kept.all() else kept)


def _on_the_ground(dataset: Any, metres: float, uri: str) -> Size:
    """Pixels that so many metres are, across and down, in the middle of the scene."""
    if dataset.crs is None or dataset.transform.is_identity:
        raise refused(uri, "unsupported", "is not georeferenced; give the size of tiles in pixels (--tile)")
    a, b, _, d, e, f, *_ = dataset.transform
    across, down = np.hypot(a, d), np.hypot(b, e)
    if dataset.crs.is_geographic:
        latitude = f + d * dataset.width / 2 + e * dataset.height / 2
        across, down = across * _METRES_PER_DEGREE * cos(radians(latitude)), down * _METRES_PER_DEGREE
    else:
        _, factor = dataset.crs.linear_units_factor
        across, down = across * factor, down * factor
    return max(1, round(metres / across)), max(1, round(metres / down))


def _sampled(dataset: Any, bands: list[int], cut: Cut) -> tuple[Range | None, Mask]:
    """The range of samples that need one, and which tiles are not mostly nodata."""
    lefts, tops = grid(cut)
    all_kept = np.ones(len(lefts) * len(tops), np.bool_)
    palette = dataset.colorinterp[bands[0] - 1] == ColorInterp.palette
    deep = any(dataset.dtypes[band - 1] != "uint8" for band in bands) and not palette
    if not deep and MaskFlags.all_valid in mask_flags(dataset, bands):
        return None, all_kept
    scale = min(1.0, SAMPLE_SIDE / max(cut.scene))
    shape = max(1, round(cut.scene[1] * scale)), max(1, round(cut.scene[0] * scale))
    samples, valid = read_samples(dataset, bands, View(shape=shape if scale < 1 else None, is_mean=False))
    seen: Mask = np.any(valid, axis=0)
    if not seen.any():
        return None, ~all_kept
    return range_of(samples, valid) if deep else None, _valid_shares(seen, cut) >= LEAST_VALID


def _valid_shares(seen: Mask, cut: Cut) -> npt.NDArray[np.float64]:
    """The share of each tile that is seen in a sample of the scene; by sums over all that is above and left."""
    total = np.zeros((seen.shape[0] + 1, seen.shape[1] + 1))
    total[1:, 1:] = seen.cumsum(axis=0).cumsum(axis=1)
    edges = []
    for starts, size, whole, length in zip(grid(cut), cut.tile, cut.scene, seen.shape[::-1], strict=True):
        first = np.floor(starts * length / whole).astype(int)
        last = np.maximum(np.ceil((starts + size) * length / whole).astype(int), first + 1)
        edges.append((first, last))
    (left, right), (top, bottom) = edges
    top, bottom = top[:, None], bottom[:, None]
    inside = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
    shares: npt.NDArray[np.float64] = (inside / ((bottom - top) * (right - left))).reshape(-1)
    return shares
