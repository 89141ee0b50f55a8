"""Where and when on earth an image was taken: its outline in lon/lat, and the time of acquisition."""

import functools
import operator
import re
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from rasterio._err import CPLE_BaseError  # what transform_bounds lets through is not a RasterioError
from rasterio.errors import RasterioError
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window

from rsir_core.geometry import Ring, counterclockwise, rectangle, to_wkb

LON_LAT: Final = "OGC:CRS84"
EVERYWHERE: Final = (-180.0, 180.0)
# 20240115, 2024-01-15 or 2024_01_15, perhaps with a time (T101031, 10:10:31, T1010Z, or the six digits right behind the
# eight of the date), but not in the middle of a longer number.
_HOUR, _MINUTE, _SECOND = "(?:[01]\\d|2[0-3])", "[0-5]\\d", "[0-5]\\d"
_DATE: Final = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<mark>[-_]?)(?P<month>\d\d)(?P=mark)(?P<day>\d\d)"
    rf"(?:(?:[T_-]|(?<=\d{{8}}))(?P<hour>{_HOUR})[:-]?(?P<minute>{_MINUTE})[:-]?(?P<second>{_SECOND})(?:\.\d+)?Z?"
    rf"|T(?P<h>{_HOUR}):?(?P<m>{_MINUTE})Z?)?(?!\d)"
)


class Footprint(NamedTuple):
    """Bounds in degrees of longitude and latitude (WGS 84); across the antimeridian west > east."""

    west: float
    south: float
    east: float
    north: float


class Ground(NamedTuple):
    """The ground that an image shows.

    Attributes:
        bbox: its bounds.
        polygon: its outline as WKB, lon/lat; two where it crosses the antimeridian.
        crs: the raster's own reference system: `EPSG:…`, or WKT where it has no code.
    """

    bbox: Footprint
    polygon: bytes
    crs: str


def meets(bbox: Footprint, west: Any, south: Any, east: Any, north: Any) -> Any:
    """Whether bounds and a footprint have a point in common; either may cross the antimeridian.

    Args:
        bbox: the footprint.
        west: of the bounds, as are the others: numbers, or columns, of which this gives an expression.
        south: its latitude.
        east: its longitude.
        north: its latitude.
    """
    shared = []
    for first, last in arcs(bbox):
        over, under = west <= last, east >= first
        shared.append((over & under) | ((west > east) & (over | under)))  # the latter: over the antimeridian
    return (south <= bbox.north) & (north >= bbox.south) & functools.reduce(operator.or_, shared)


def arcs(bbox: Footprint) -> list[tuple[float, float]]:
    """One span of longitudes, or the two on either side of the antimeridian, which is both -180 and 180."""
    low, high = EVERYWHERE
    if bbox.west > bbox.east:
        return [(bbox.west, high), (low, bbox.east)]
    edges = [(low, low), (high, high)] if bbox.west == low or bbox.east == high else []
    return [(bbox.west, bbox.east), *edges]


def ground_of(dataset: Any, window: Window | None = None) -> Ground | None:
    """Of an open rasterio dataset or a window of it; None: it is not georeferenced, or in no way known on earth."""
    if dataset.crs is None or dataset.transform.is_identity:
        return None
    x, y, width, height = (0, 0, dataset.width, dataset.height) if window is None else window.flatten()
    corners = [(x, y), (x, y + height), (x + width, y + height), (x + width, y), (x, y)]
    a, b, c, d, e, f, *_ = dataset.transform
    xs, ys = [a * x + b * y + c for x, y in corners], [d * x + e * y + f for x, y in corners]
    try:
        bounds = transform_bounds(dataset.crs, LON_LAT, min(xs), min(ys), max(xs), max(ys))
        longitudes, latitudes = transform(dataset.crs, LON_LAT, xs, ys)
    except (RasterioError, CPLE_BaseError):  # a local engineering grid, or bounds outside of its projection
        return None
    bbox = around_the_globe(Footprint(*bounds))
    if bbox is None:
        return None
    rings = _outline(list(zip(longitudes, latitudes, strict=True)), bbox)
    return Ground(bbox, to_wkb([counterclockwise(ring) for ring in rings]), dataset.crs.to_string())


def around_the_globe(found: Footprint) -> Footprint | None:
    """With longitudes within ±180°: some rasters count them to 360, or on across the antimeridian.

    West of the antimeridian's west > east stays as it is. None: these are no bounds on earth.
    """
    west, south, east, north = found
    if not (abs(west) <= 540 and abs(east) <= 540 and -90 <= south <= north <= 90):
        return None
    if east - west >= 360:
        return Footprint(-180.0, south, 180.0, north)
    west, east = (x if abs(x) <= 180 else (x + 180) % 360 - 180 for x in (west, east))
    # What only touches the antimeridian does not cross it.
    return Footprint(-180.0 if west == 180 else west, south, 180.0 if east == -180 else east, north)


def _outline(corners: Ring, bbox: Footprint) -> list[Ring]:
    """A ring through the corners; where that is none on a plane, as across ±180° or around a pole, the bounds' own."""
    west, south, east, north = bbox
    if west > east:
        return [rectangle(west, south, 180.0, north), rectangle(-180.0, south, east, north)]
    longitudes = [longitude for longitude, _ in corners]
    if max(longitudes) - min(longitudes) >= 180 or min(longitudes) < west - 1e-6 or max(longitudes) > east + 1e-6:
        return [rectangle(*bbox)]
    return [corners]


def time_of(dataset: Any) -> datetime | None:
    """The TIFF's DateTime, which has no zone and counts as UTC; None: there is none that can be read."""
    try:
        return datetime.strptime(dataset.tags().get("TIFFTAG_DATETIME", ""), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def time_in(uri: str) -> datetime | None:
    """The first date, with its time of day if there is one, in a file's name, as UTC; None: there is none.

    As satellites' products and drones' pictures are named: S2A_MSIL1C_20240115T101031_…, LC08_…_20230712_…,
    2023-07-12.tif, DJI_20230712153012_0001_D.jpg.
    """
    path = uri.partition("?")[0] if "://" in uri else uri  # not when a link was signed
    for found in _DATE.finditer(path.rpartition("/")[2]):
        date = (int(found[part]) for part in ("year", "month", "day"))
        clock = (found["hour"] or found["h"], found["minute"] or found["m"], found["second"])
        try:
            return datetime(*date, *(int(part or 0) for part in clock), tzinfo=UTC)
        except ValueError:  # the 40th of a month: some other number
            continue
    return None
