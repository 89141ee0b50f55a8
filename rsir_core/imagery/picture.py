"""A decoded image, and what is made of one for people to look at."""

import io
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from rsir_core.arrays import Pixels

if TYPE_CHECKING:  # bring rasterio, which an endpoint's ingress does without
    from rasterio.windows import Window

    from rsir_core.geo.footprint import Footprint

THUMBNAIL_SIDE: Final = 256


@dataclass(frozen=True)
class Picture:
    """Hold a decoded image."""

    pixels: Pixels  # H×W×3 uint8, RGB, upright; C-contiguous and writable
    notes: str | None  # decisions made while reading (stretch, first page, bands, transparent pixels); None: none
    time: datetime | None = None  # of acquisition, UTC; None: not in the file
    footprint: "Footprint | None" = None  # None: the file is not georeferenced
    window: "Window | None" = None  # of a tile, in pixels of its scene; None: a whole image
    cell: str | None = None  # of a tile that is a cell of the global grid: its quadkey
    covered: float | None = None  # of such a tile: share of the cell that has data


PROBE: Final = Picture(np.zeros((32, 32, 3), np.uint8), None)  # to see that pictures are described


def shrink(picture: Picture, side: int) -> bytes:
    """Encode the picture as a JPEG of at most side × side pixels; a smaller one keeps its size."""
    image = Image.fromarray(picture.pixels)
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
