"""Where and when: as every point of a raster's edge says, wherever on earth it lies."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform

from rsir_core.errors import ImageError
from rsir_core.geo.acquisition_time import time_of
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.geo.footprint import footprint_of
from rsir_core.imagery.decode import decode
from tests.support.rasters import gdal_file, large_is_slow, pillow_file

GEOTIFF = Path(__file__).parents[2].parent / "shared" / "data" / "geotiff"
needs_geotiff = pytest.mark.skipif(not GEOTIFF.is_dir(), reason=f"no data in {GEOTIFF}")
FILES = sorted(GEOTIFF.glob("*.tif")) if GEOTIFF.is_dir() else []


@contextmanager
def opened(data: bytes) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.MemoryFile(data) as file, file.open() as dataset:
            yield dataset


def raster(crs: str | None, bounds: tuple[float, float, float, float]) -> bytes:
    west, south, east, north = bounds
    placed = Affine((east - west) / 8, 0, west, 0, (south - north) / 8, north)
    options: dict[str, Any] = {"crs": crs, "transform": placed} if crs else {}
    return gdal_file(np.ones((1, 8, 8), np.uint8), **options)


def bounds_of(dataset: Any) -> BoundingBox | None:
    footprint = footprint_of(dataset)
    return footprint and footprint.bbox


def found(data: bytes) -> BoundingBox | None:
    with opened(data) as dataset:
        return bounds_of(dataset)


def edge_points(dataset: Any) -> tuple[list[float], list[float]]:
    """Longitude and latitude of 400 points of a raster's edge, each on its own."""
    west, south, east, north = dataset.bounds
    x, y = np.linspace(west, east, 100), np.linspace(south, north, 100)
    xs = np.concatenate([x, x, np.full(100, west), np.full(100, east)])
    ys = np.concatenate([np.full(100, south), np.full(100, north), y, y])
    lon, lat = transform(dataset.crs, "EPSG:4326", xs, ys)
    return lon, lat


@needs_geotiff
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_real_rasters_lie_where_each_point_of_their_edge_does(file: Path) -> None:
    with opened(file.read_bytes()) as dataset:
        if dataset.crs is None:
            assert (bounds_of(dataset) is None) == (not dataset.gcps[0])
            return
        lon, lat = edge_points(dataset)
        footprint = bounds_of(dataset)
    assert footprint is not None
    size = max(max(lon) - min(lon), max(lat) - min(lat))
    assert footprint == pytest.approx((min(lon), min(lat), max(lon), max(lat)), abs=size / 1000)


@needs_geotiff
@pytest.mark.parametrize("file", large_is_slow(FILES), ids=lambda file: file.name)
def test_a_picture_carries_what_its_file_says(file: Path) -> None:
    data = file.read_bytes()
    try:
        picture = decode(data, file.name)
    except ImageError:
        pytest.skip("no picture")
    with opened(data) as dataset:
        assert (picture.footprint and picture.footprint.bbox, picture.time) == (bounds_of(dataset), time_of(dataset))


@pytest.mark.parametrize(
    ("crs", "bounds"),
    [("EPSG:32660", (600_000, 0, 900_000, 100_000)), ("EPSG:3857", (19_900_000, -50_000, 20_200_000, 50_000))],
)
def test_across_the_antimeridian_west_is_more_than_east(crs: str, bounds: tuple[float, float, float, float]) -> None:
    data = raster(crs, bounds)
    with opened(data) as dataset:
        lon, lat = edge_points(dataset)
        footprint = bounds_of(dataset)
    assert footprint is not None and footprint.west > footprint.east
    turned = [x % 360 for x in lon]  # without the seam
    assert (footprint.west, footprint.east + 360) == pytest.approx((min(turned), max(turned)), abs=0.002)
    assert (footprint.south, footprint.north) == pytest.approx((min(lat), max(lat)), abs=0.002)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((179, 0, 181, 1), (179, 0, -179, 1)),
        ((-181, 0, -179, 1), (179, 0, -179, 1)),
        ((0, -60, 360, 60), (-180, -60, 180, 60)),  # as climate data often count
        ((200, 10, 210, 20), (-160, 10, -150, 20)),
        ((350, 0, 370, 1), (-10, 0, 10, 1)),
        ((-180, -90, 180, 90), (-180, -90, 180, 90)),
        ((170, 0, 180, 1), (170, 0, 180, 1)),
        ((180, 0, 190, 1), (-180, 0, -170, 1)),
        ((-190, 0, -180, 1), (170, 0, 180, 1)),
        ((0, 0, 1, 100), None),  # pixels, called degrees
        ((0, -90.125, 1, 90.125), (0, -90, 1, 90)),  # pixels' centres on the poles
        ((0, 0, 5000, 1), None),
    ],
)
def test_longitudes_beyond_180_are_brought_back(
    bounds: tuple[float, float, float, float], expected: tuple[float, ...] | None
) -> None:
    assert found(raster("EPSG:4326", bounds)) == (expected and pytest.approx(expected, abs=1e-9))


@given(st.integers(-540, 540), st.integers(1, 359))
def test_longitudes_stay_the_same_places(west: int, width: int) -> None:
    footprint = found(raster("EPSG:4326", (west, 0, west + width, 1)))
    if west + width > 540:
        assert footprint is None
        return
    assert footprint is not None and -180 <= footprint.west <= 180 and -180 <= footprint.east <= 180
    assert footprint.west < 180 and footprint.east > -180  # else it would cross them with nothing beyond
    turned = np.exp(1j * np.radians([footprint.west, footprint.east]))
    np.testing.assert_allclose(turned, np.exp(1j * np.radians([west, west + width])), atol=1e-9)


def test_what_is_not_on_earth_has_no_footprint() -> None:
    assert found(raster(None, (0, 0, 1, 1))) is None
    local = 'LOCAL_CS["a building site",UNIT["metre",1]]'
    assert found(raster(local, (0, 0, 8, 8))) is None
    assert found(raster("EPSG:32660", (1e12, 1e12, 2e12, 2e12))) is None


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2022:01:17 10:43:43", datetime(2022, 1, 17, 10, 43, 43, tzinfo=UTC)),
        ("2022-01-17 10:43:43", None),
        ("2022:02:30 00:00:00", None),
        ("0000:00:00 00:00:00", None),
    ],
)
def test_the_time_is_the_tiffs_own(text: str, time: datetime | None) -> None:
    with opened(pillow_file(Image.new("L", (8, 8)), "TIFF", tiffinfo={306: text})) as dataset:
        assert time_of(dataset) == time


def test_a_file_without_a_time_has_none() -> None:
    with opened(raster("EPSG:4326", (0, 0, 1, 1))) as dataset:
        assert time_of(dataset) is None
