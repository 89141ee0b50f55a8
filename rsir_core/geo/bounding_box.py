"""Bounds in longitude and latitude, and whether they meet, the antimeridian included."""

import functools
import operator
from typing import Any, Final, NamedTuple

EVERYWHERE: Final = (-180.0, 180.0)


class BoundingBox(NamedTuple):
    """Hold bounds in degrees of longitude and latitude (WGS 84); across the antimeridian west > east."""

    west: float
    south: float
    east: float
    north: float


def meets(bbox: BoundingBox, west: Any, south: Any, east: Any, north: Any) -> Any:
    """Tell whether bounds and a bounding box have a point in common; either may cross the antimeridian.

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


def arcs(bbox: BoundingBox) -> list[tuple[float, float]]:
    """Split bounds into one span of longitudes, or two on either side of the antimeridian (both -180 and 180)."""
    low, high = EVERYWHERE
    if bbox.west > bbox.east:
        return [(bbox.west, high), (low, bbox.east)]
    edges = [(low, low), (high, high)] if bbox.west == low or bbox.east == high else []
    return [(bbox.west, bbox.east), *edges]


def around_the_globe(found: BoundingBox) -> BoundingBox | None:
    """Bring bounds to longitudes within ±180°: some rasters count them to 360, or on across the antimeridian.

    West of the antimeridian's west > east stays as it is. None: these are no bounds on earth.
    """
    west, south, east, north = found
    if not (abs(west) <= 540 and abs(east) <= 540 and -90 <= south <= north <= 90):
        return None
    if east - west >= 360:
        return BoundingBox(-180.0, south, 180.0, north)
    west, east = (x if abs(x) <= 180 else (x + 180) % 360 - 180 for x in (west, east))
    # What only touches the antimeridian does not cross it.
    return BoundingBox(-180.0 if west == 180 else west, south, 180.0 if east == -180 else east, north)
