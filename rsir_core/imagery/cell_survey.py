"""Find the cells of the global grid that a scene has data for."""

from typing import Any, Final

import numpy as np

from rsir_core.arrays import Doubles, Mask
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.geo.cells import bounds_of, cells_in, lattice_of
from rsir_core.geo.footprint import footprint_of
from rsir_core.geo.placement import Placement
from rsir_core.imagery.cell_tile import check_placed, to_pixels, window_of
from rsir_core.imagery.rgb import refused
from rsir_core.imagery.tile_grid import MIN_SIDE, MIN_VALID, SceneCells
from rsir_core.imagery.tile_uri import Recipe

SIDE: Final = 16  # places across and down a cell at which the scene is looked up
CELLS_AT_ONCE: Final = 4096


def survey_cells(dataset: Any, uri: str, zoom: int, recipe: Recipe, seen: Mask) -> SceneCells:
    """Find the cells at least half of which a scene has data for.

    Args:
        dataset: open rasterio dataset of the scene.
        uri: of the scene, for messages.
        zoom: of the grid.
        recipe: how each cell is read.
        seen: which parts of the scene are valid, (rows, columns) over all of it.

    Raises:
        ImageError: `unsupported` if the scene has no affine georeference on earth, if its pixels are too coarse for the
            cells, or if it is too small to cover half of any.
    """
    _check_pixels(dataset, check_placed(dataset, uri), uri, zoom)
    ground = footprint_of(dataset)
    cells = [] if ground is None else cells_in(ground.bbox, zoom)
    shares = [_shares(dataset, cells[i : i + CELLS_AT_ONCE], seen) for i in range(0, len(cells), CELLS_AT_ONCE)]
    inside, valid = np.concatenate([np.empty((2, 0)), *shares], axis=1)
    if not (inside >= MIN_VALID).any():
        raise refused(uri, "unsupported", f"covers no cell of zoom {zoom} by half; take a larger --grid")
    kept = valid >= MIN_VALID
    skipped = int(np.count_nonzero((inside > 0) & ~kept))
    return SceneCells((dataset.width, dataset.height), [cells[i] for i in np.flatnonzero(kept)], recipe, skipped)


def _check_pixels(dataset: Any, placement: Placement, uri: str, zoom: int) -> None:
    """Check that the scene has enough pixels in the cell at its centre."""
    middle = np.array([dataset.width / 2]), np.array([dataset.height / 2])
    (longitude,), (latitude,) = placement.place(*middle)
    here = cells_in(BoundingBox(longitude, latitude, longitude, latitude), zoom) if np.isfinite(longitude) else []
    if not here:
        raise refused(uri, "unsupported", "has its centre off the grid, which ends at 85° north and south; omit --grid")
    size = window_of(dataset, bounds_of(here[0]))
    if min(size.width, size.height) < MIN_SIDE:
        what = f"has {size.width}×{size.height} pixels for a cell of zoom {zoom}, too few; take a smaller --grid"
        raise refused(uri, "unsupported", what)


def _shares(dataset: Any, cells: list[str], seen: Mask) -> Doubles:
    """Compute which share of each cell lies in the scene, and which has data there: (2, cells)."""
    columns, rows = to_pixels(dataset, *lattice_of(cells, SIDE))
    with np.errstate(invalid="ignore"):
        inside = (columns >= 0) & (columns < dataset.width) & (rows >= 0) & (rows < dataset.height)
    valid = np.zeros(len(inside), np.bool_)
    down, across = (
        np.minimum((values[inside] * length / whole).astype(int), length - 1)
        for values, length, whole in zip((rows, columns), seen.shape, dataset.shape, strict=True)
    )
    valid[inside] = seen[down, across]
    shares: Doubles = np.stack([inside, valid]).reshape(2, len(cells), SIDE**2).mean(axis=2)
    return shares
