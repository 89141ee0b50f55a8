"""Tiles with what lies around them in their scene, for people who look at one."""

from dataclasses import replace

import numpy as np
from rasterio.windows import Window

from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.orientation import turned
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.rgb import MAX_PIXELS, check_size
from rsir_core.imagery.scene_file import open_scene
from rsir_core.imagery.tile_uri import Tile, orientation_of_scene, read_tile


def read_surroundings(uri: str, around: float, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a tile with its surroundings; other images, which have none, are read as they are.

    Args:
        uri: of the image.
        around: what to add on each side, as a share (0 or more) of the tile's width or height; it is black where the
            scene ends, so the tile is always in the middle.
        max_pixels: limit of the tile with its surroundings.

    Raises:
        ImageError: see `read_picture`.
    """
    tile = Tile.parse(uri)
    if tile is None or around == 0:
        return read_picture(uri, max_pixels)
    with open_scene(tile.scene) as dataset:
        x, y, width, height = tile.window.flatten()
        right, bottom = round(around * width), round(around * height)
        left, top = min(right, x), min(bottom, y)
        window = Window(
            x - left, y - top,
            left + width + min(right, dataset.width - x - width),
            top + height + min(bottom, dataset.height - y - height),
        )  # fmt: skip
        columns, rows = tile.recipe.size or (width, height)
        across, down = columns / width, rows / height  # resampling
        size = round(window.width * across), round(window.height * down)
        wide = replace(tile, window=window, recipe=tile.recipe._replace(size=size))
        shape = round((height + 2 * bottom) * down), round((width + 2 * right) * across)
        check_size(uri, shape[0] * shape[1], max_pixels)
        found = read_tile(dataset, wide, max_pixels)
        canvas = np.zeros((*shape, 3), np.uint8)
        column, row = round((right - left) * across), round((bottom - top) * down)
        part = canvas[row : row + size[1], column : column + size[0]]
        part[:] = found.pixels[: part.shape[0], : part.shape[1]]
        orientation = orientation_of_scene(dataset, tile.scene)
    return Picture(np.ascontiguousarray(turned(canvas, orientation)), None)
