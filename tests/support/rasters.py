"""Image files built in memory."""

import io
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

LARGE = "cog_cmap.tif"  # 62 million pixels


def large_is_slow(files: Iterable[Any]) -> list[Any]:
    """Parameters of a test, whose largest file is not for the fast ones."""
    return [pytest.param(file, marks=pytest.mark.slow if str(file).endswith(LARGE) else ()) for file in files]


def gdal_file(
    bands: npt.NDArray[Any], driver: str = "GTiff", colours: tuple[ColorInterp, ...] = (), **options: Any
) -> bytes:
    """A file of bands×H×W samples as GDAL writes it; they are its upper left corner where height and width differ."""
    count, height, width = bands.shape
    profile = {"driver": driver, "count": count, "height": height, "width": width, "dtype": bands.dtype.name, **options}
    with warnings.catch_warnings(), rasterio.MemoryFile() as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(**profile) as dataset:
            dataset.write(bands, window=Window(0, 0, width, height))
            if colours:
                dataset.colorinterp = colours
        return bytes(file.getbuffer())


def pillow_file(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A file of an image as Pillow writes it."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def scene(height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """A smooth picture H×W×3 without symmetry, which survives JPEG."""
    y, x = np.mgrid[0:height, 0:width]
    channels = 3 * x + y, 255 - 2 * x - y, 40 + 2 * y
    return np.stack(channels, axis=2).clip(0, 255).astype(np.uint8)
