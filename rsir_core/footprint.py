"""Where and when on earth an image was taken: lon/lat bounds, and the time of acquisition."""

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from rasterio._err import CPLE_BaseError  # what transform_bounds lets through is not a RasterioError
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

LON_LAT: Final = "OGC:CRS84"


class Footprint(NamedTuple):
    """Bounds in degrees of longitude and latitude (WGS 84); across the antimeridian west > east."""

    west: float
    south: float
    east: float
    north: float


def footprint_of(dataset: Any) -> Footprint | None:
    """Of an open rasterio dataset; None: it is not georeferenced, or its reference has no meaning on earth."""
    if dataset.crs is None or dataset.transform.is_identity:
        return None
    try:
        found = Footprint(*transform_bounds(dataset.crs, LON_LAT, *dataset.bounds))
    except (RasterioError, CPLE_BaseError):  # a local engineering grid, or bounds outside of its projection
        return None
    return _around_the_globe(found)


def _around_the_globe(found: Footprint) -> Footprint | None:
    """With longitudes within ±180°: some rasters count them to 360, or on across the antimeridian."""
    west, south, east, north = found
    if not (abs(west) <= 540 and abs(east) <= 540 and -90 <= south <= north <= 90):
        return None
    if east - west >= 360:
        return Footprint(-180.0, south, 180.0, north)
    west, east = (x if abs(x) <= 180 else (x + 180) % 360 - 180 for x in (west, east))
    return Footprint(west, south, east, north)


def time_of(dataset: Any) -> datetime | None:
    """The TIFF's DateTime, which has no zone and counts as UTC; None: there is none that can be read."""
    try:
        return datetime.strptime(dataset.tags().get("TIFFTAG_DATETIME", ""), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
