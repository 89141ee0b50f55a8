"""Survey large rasters by their headers: how each is cut into tiles, and which tiles hold valid pixels."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyproj import Geod
from rasterio.enums import ColorInterp, MaskFlags

from rsir_core import schemas
from rsir_core.arrays import Doubles, Mask
from rsir_core.errors import ImageError
from rsir_core.geo.placement import Placement, placement_of
from rsir_core.imagery.cell_survey import survey_cells
from rsir_core.imagery.composite import Composite
from rsir_core.imagery.rgb import (
    Range,
    RasterRead,
    check_blocks,
    mask_flags,
    named_bands,
    range_of,
    read_samples,
    refused,
)
from rsir_core.imagery.sandbox import JsonObject, Reader, allow
from rsir_core.imagery.scene_file import SceneFormatError, open_scene
from rsir_core.imagery.tile_grid import MIN_SIDE, MIN_VALID, SceneCells, Size, TileGrid, Tiling, grid
from rsir_core.imagery.tile_uri import Recipe, bands_of

SAMPLE_SIDE: Final = 1024  # pixels, at most, of the overview that gives a scene's sample range and valid parts
SURVEYED: Final = pa.schema([*schemas.SCENES, *schemas.FAILURE])


def survey_files(listing: pa.Table, readers: Sequence[Reader[JsonObject]], tiling: Tiling, max_pixels: int) -> pa.Table:
    """Survey listed files (schema `schemas.LISTING`); returns one row each, schema `SURVEYED`.

    Args:
        listing: the files.
        readers: of `survey_scene`; several, because each mostly waits for its store.
        tiling: how scenes are cut.
        max_pixels: limit of pixels that may be held of one file.
    """
    asked = [
        (uri, size, astuple(tiling), max_pixels)
        for uri, size in zip(listing[schemas.URI].to_pylist(), listing[schemas.SIZE].to_pylist(), strict=True)
    ]
    n = len(readers)
    with ThreadPoolExecutor(n) as threads:
        found = list(threads.map(lambda i: readers[i].read(asked[i::n]), range(n)))
    keys = listing.select([schemas.IMAGE_ID, schemas.URI, schemas.ETAG]).to_pylist()
    surveyed = [key | {"tiling": str(tiling)} | _columns_of(found[i % n][i // n]) for i, key in enumerate(keys)]
    return pa.table({name: [row.get(name) for row in surveyed] for name in SURVEYED.names}, SURVEYED)


def _columns_of(found: JsonObject | ImageError) -> JsonObject:
    if isinstance(found, ImageError):
        return {schemas.STAGE: found.stage, schemas.KIND: found.kind, schemas.MESSAGE: str(found)}
    return found | {"kept": bytes.fromhex(found["kept"])} if found.get("kept") else found


def survey_scene(uri: str, size: int, tiling: Sequence[Any], max_pixels: int) -> JsonObject:
    """Survey a scene within a `Reader`; returns columns of `schemas.SCENES`, or none if the file fits into one tile.

    A scene without overviews must be read block by block, so it is allowed more time, in proportion to its bytes; the
    size in its header could be wrong.
    """
    allow(1 + max(size, 0) // max_pixels)
    wanted = Tiling(*tiling)
    cut = (survey if wanted.zoom is None else survey_on_grid)(uri, wanted, max_pixels)
    if cut is None:
        return {}
    row = cut.row()
    return row | {"kept": row["kept"] and row["kept"].hex()}


def survey(uri: str, tiling: Tiling, max_pixels: int) -> TileGrid | None:
    """Decide from a scene's header how it is cut; None if it is an ordinary image, small or of another format.

    If samples are not 8-bit, or some may be nodata, an overview is read as well; without overviews every block is read
    once, one after another.

    Raises:
        ImageError: as `open_scene`; `unsupported` also if tiles are given in metres and the scene is not georeferenced;
            `too_large` if it has no blocks that can be read one by one.
    """
    try:
        with open_scene(uri) as dataset:
            return _cut(dataset, uri, tiling, max_pixels)
    except SceneFormatError:  # for example a JPEG named .tif
        return None


def survey_on_grid(uri: str, tiling: Tiling, max_pixels: int) -> SceneCells | None:
    """Decide from a scene's header which cells of the global grid it shows; None if its format is another.

    Raises:
        ImageError: as `survey` and `survey_cells`.
    """
    try:
        with open_scene(uri) as dataset:
            bands, recipe = _recipe(dataset, uri, tiling, (tiling.side, tiling.side), max_pixels)
            stretch, seen = _sampled(dataset, bands)
            recipe = recipe._replace(stretch=recipe.stretch or stretch)
            return survey_cells(dataset, uri, int(tiling.zoom or 0), recipe, seen)
    except SceneFormatError:
        return None


def _cut(dataset: Any, uri: str, tiling: Tiling, max_pixels: int) -> TileGrid | None:
    scene = dataset.width, dataset.height
    wanted = (tiling.side, tiling.side) if tiling.metres is None else _on_the_ground(dataset, tiling.metres, uri)
    if scene[0] <= wanted[0] and scene[1] <= wanted[1]:
        return None
    tile = min(scene[0], wanted[0]), min(scene[1], wanted[1])
    step = max(1, round(tile[0] * (1 - tiling.overlap))), max(1, round(tile[1] * (1 - tiling.overlap)))
    read = min(tile[0], tiling.side), min(tile[1], tiling.side)
    bands, recipe = _recipe(dataset, uri, tiling, None if read == tile else read, max_pixels)
    stretch, seen = _sampled(dataset, bands)
    cut = TileGrid(scene, tile, step, recipe._replace(stretch=recipe.stretch or stretch), None)
    kept = _valid_shares(seen, cut) >= MIN_VALID
    return cut._replace(kept=None if kept.all() else kept)


def _recipe(dataset: Any, uri: str, tiling: Tiling, size: Size | None, max_pixels: int) -> tuple[list[int], Recipe]:
    """Choose the bands of a scene; returns them with how its tiles are read, but for a sampled stretch."""
    composite = Composite.parse(uri)  # whose bands are chosen already
    chosen = tuple(named_bands(dataset, tiling.bands, uri)) if tiling.bands and composite is None else ()
    bands = bands_of(dataset, chosen, uri)
    check_blocks(dataset, bands, uri, max_pixels)
    return bands, Recipe(size, chosen, None if composite is None else composite.stretch)


def _on_the_ground(dataset: Any, metres: float, uri: str) -> Size:
    """Convert metres on the ground to pixels, across and down, at the centre of the scene."""
    placement = placement_of(dataset)
    if placement is None:
        what = "is not georeferenced" if dataset.crs is None else "is georeferenced, but not on earth"
        raise refused(uri, "unsupported", f"{what}; give the size of tiles in pixels (--tile)")
    across, down = _metres_per_pixel(placement, dataset.width / 2, dataset.height / 2)
    if not 0 < min(across, down) < np.inf:
        raise refused(uri, "unsupported", "has its centre off the earth; give the size of tiles in pixels (--tile)")
    size = round(metres / across), round(metres / down)
    if min(size) < MIN_SIDE:
        pixels = f"has pixels of {across:.3g} × {down:.3g} m"
        raise refused(uri, "unsupported", f"{pixels}, of which tiles of {metres:g} m have too few; take larger tiles")
    return size


def _metres_per_pixel(placement: Placement, x: float, y: float) -> tuple[float, float]:
    """Measure metres per pixel, across and down, at a point of a scene, on the ellipsoid; infinite off the earth."""
    xs, ys = np.array([x - 0.5, x + 0.5, x, x]), np.array([y, y, y - 0.5, y + 0.5])
    longitude, latitude = placement.place(xs, ys)
    if not (np.isfinite(longitude).all() and np.isfinite(latitude).all()):
        return np.inf, np.inf
    _, _, metres = Geod(ellps="WGS84").inv(longitude[::2], latitude[::2], longitude[1::2], latitude[1::2])
    return float(metres[0]), float(metres[1])


def _sampled(dataset: Any, bands: list[int]) -> tuple[Range | None, Mask]:
    """Sample a scene for its sample range (None if it needs none) and for which parts are valid.

    The second is a picture of the whole scene, of at most `SAMPLE_SIDE` pixels a side; of one if all of it is valid.
    """
    palette = dataset.colorinterp[bands[0] - 1] == ColorInterp.palette
    deep = any(dataset.dtypes[band - 1] != "uint8" for band in bands) and not palette
    if not deep and mask_flags(dataset, bands) == {MaskFlags.all_valid}:
        return None, np.ones((1, 1), np.bool_)
    scale = min(1.0, SAMPLE_SIDE / max(dataset.shape))
    shape = max(1, round(dataset.height * scale)), max(1, round(dataset.width * scale))
    samples, valid = read_samples(dataset, bands, RasterRead(shape=shape if scale < 1 else None, is_mean=False))
    seen: Mask = np.any(valid, axis=0)
    return range_of(samples, valid) if deep and seen.any() else None, seen


def _valid_shares(seen: Mask, cut: TileGrid) -> Doubles:
    """Compute each tile's share of valid pixels from a sample of the scene, by a summed-area table."""
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
    shares: Doubles = (inside / ((bottom - top) * (right - left))).reshape(-1)
    return shares
