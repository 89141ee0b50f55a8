"""Scenes made of many pictures, as large as one likes: written by windows, never held."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.shutil import copy
from rasterio.transform import Affine
from rasterio.windows import Window

from rsir_core.imagery.decode import read_picture

CELL = 256


def write_mosaic(file: Path, images: Sequence[str], side: int, corner: tuple[float, float], **options: Any) -> None:
    """A COG of side × side pixels of a metre, of pictures side by side, over and over; in UTM zone 33.

    Args:
        file: to write.
        images: URIs; of each, its upper left part.
        side: pixels.
        corner: easting and northing of the upper left one.
        options: of the file as GDAL has them; `dtype` uint16 makes each value 100 times as large.
    """
    place = {"crs": "EPSG:32633", "transform": Affine(1, 0, corner[0], 0, -1, corner[1])}
    profile: dict[str, Any] = {"driver": "GTiff", "count": 3, "width": side, "height": side, "dtype": "uint8", **place}
    profile |= {"tiled": True, "blockxsize": CELL, "blockysize": CELL, **options}
    unfinished = file.with_suffix(".unfinished")
    cells = math.ceil(side / CELL)
    with rasterio.open(unfinished, "w", **profile) as scene:
        for n in range(cells * cells):
            x, y = n % cells * CELL, n // cells * CELL
            picture = np.zeros((CELL, CELL, 3), np.uint8)
            found = read_picture(images[n % len(images)]).pixels[:CELL, :CELL]
            picture[: found.shape[0], : found.shape[1]] = found
            samples = picture[: side - y, : side - x].transpose(2, 0, 1).astype(profile["dtype"])
            samples = samples * 100 if samples.dtype == np.uint16 else samples
            scene.write(samples, window=Window(x, y, samples.shape[2], samples.shape[1]))
    copy(unfinished, file, driver="COG", compress="jpeg" if profile["dtype"] == "uint8" else "deflate", blocksize=CELL)
    unfinished.unlink()
