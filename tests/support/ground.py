"""Scenes of one made-up ground, in several reference systems and resolutions."""

from typing import Any

import numpy as np
from pyproj import Transformer
from rasterio.transform import Affine

from rsir_core.arrays import Doubles
from rsir_core.geo.cells import CRS
from tests.support.rasters import gdal_file

GROUND: dict[str, Any] = {  # a few cells at 45° N, 15° E in several systems and resolutions
    "utm": {"crs": "EPSG:32633", "transform": Affine(2, 0, 500_000, 0, -2, 5_000_000)},
    "fine": {"crs": "EPSG:32633", "transform": Affine(0.7, 0, 500_010, 0, -0.7, 5_000_000)},
    "turned": {"crs": "EPSG:32633", "transform": Affine(1.6, 0.9, 499_900, 0.9, -1.6, 4_999_800)},
    "degrees": {"crs": "EPSG:4326", "transform": Affine(2e-5, 0, 15.0, 0, -1.5e-5, 45.153)},
    "web": {"crs": CRS, "transform": Affine(3, 0, 1_669_800, 0, -3, 5_645_700)},
}
SIZE = 1100, 1000  # height, width


def painted(x: Doubles, y: Doubles) -> Any:
    """Samples (3, …) at places in metres of Web Mercator: slopes, so that a difference of values is one of places."""
    return np.stack([(x / 8) % 512 - 256, (y / 8) % 512 - 256, (x + y) / 16 % 512 - 256]).__abs__().clip(1, 250)


def scene_of(name: str, size: tuple[int, int] = SIZE, **options: Any) -> bytes:
    """A scene of that ground, each of whose pixels is what is painted at its middle."""
    place = GROUND[name]
    columns, rows = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    a, b, c, d, e, f, *_ = place["transform"]
    across, up = a * columns + b * rows + c, d * columns + e * rows + f
    samples = painted(*Transformer.from_crs(place["crs"], CRS, always_xy=True).transform(across, up))
    return gdal_file(samples.round().astype(np.uint8), tiled=True, blockxsize=128, blockysize=128, **place, **options)
