"""Where and when on earth an image was taken: lon/lat bounds, and the time of acquisition."""

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

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
    except RasterioError:  # a local engineering grid, or bounds outside of its projection
        return None
    sound = abs(found.west) <= 180 and abs(found.east) <= 180 and -90 <= found.south <= found.north <= 90
    return found if sound else None


def time_of(dataset: Any) -> datetime | None:
    """The TIFF's DateTime, which has no zone and counts as UTC; None: there is none that can be read."""
    try:
        return datetime.strptime(dataset.tags().get("TIFFTAG_DATETIME", ""), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
