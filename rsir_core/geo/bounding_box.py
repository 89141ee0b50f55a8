"""Bounding boxes in longitude and latitude, which may cross the antimeridian."""

import functools
import operator
from typing import Any, Final, NamedTuple

EVERYWHERE: Final = (-180.0, 180.0)


class BoundingBox(NamedTuple):
    """Hold bounds in degrees of longitude and latitude (WGS 84); west > east means across the antimeridian."""

    west: float
    south: float
    east: float
    north: float


def meets(bbox: BoundingBox, west: Any, south: Any, east: Any, north: Any) -> Any:
    """Tell whether a bounding box and other bounds have a point in common; either may cross the antimeridian.

    Args:
        bbox: the bounding box.
        west: western edge of the other bounds: a number, an array or a pyarrow expression, as the result is then.
        south: their southern edge, likewise.
        east: their eastern edge, likewise.
        north: their northern edge, likewise.
    """
    shared = []
    for first, last in arcs(bbox):
        over, under = west <= last, east >= first
        shared.append((over & under) | ((west > east) & (over | under)))  # west > east: across the antimeridian
    return (south <= bbox.north) & (north >= bbox.south) & functools.reduce(operator.or_, shared)


def arcs(bbox: BoundingBox) -> list[tuple[float, float]]:
    """Split a box into spans of longitude, none of which crosses the antimeridian; -180 and 180 are the same place."""
    low, high = EVERYWHERE
    if bbox.west > bbox.east:
        return [(bbox.west, high), (low, bbox.east)]
    edges = [(low, low), (high, high)] if bbox.west == low or bbox.east == high else []
    return [(bbox.west, bbox.east), *edges]


def around_the_globe(found: BoundingBox) -> BoundingBox | None:
    """Normalise longitudes to ±180°: some rasters count from 0 to 360, others continue across the antimeridian.

    A box with west > east keeps crossing the antimeridian. Returns None for values that are not on earth.
    """
    west, south, east, north = found
    if not (abs(west) <= 540 and abs(east) <= 540 and -90 <= south <= north <= 90):
        return None
    if east - west >= 360:
        return BoundingBox(-180.0, south, 180.0, north)
    west, east = (x if abs(x) <= 180 else (x + 180) % 360 - 180 for x in (west, east))
    # A box that only touches the antimeridian does not cross it.
    return BoundingBox(-180.0 if west == 180 else west, south, 180.0 if east == -180 else east, north)
