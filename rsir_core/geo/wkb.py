"""Polygons on earth as GeoParquet and GeoJSON have them; of one ring each, in degrees of longitude and latitude."""

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

Ring = Sequence[tuple[float, float]]  # (longitude, latitude); closed: the last is the first

_POLYGON: Final = 3
_MULTIPOLYGON: Final = 6
_BYTE_ORDER: Final = 1  # little endian


def to_wkb(rings: Sequence[Ring]) -> bytes:
    """Well-known binary of a polygon, or of a multipolygon where there are several rings."""
    polygons = [_polygon(ring) for ring in rings]
    if len(polygons) == 1:
        return polygons[0]
    return struct.pack("<BII", _BYTE_ORDER, _MULTIPOLYGON, len(polygons)) + b"".join(polygons)


def _polygon(ring: Ring) -> bytes:
    numbers = [number for point in ring for number in point]
    return struct.pack(f"<BIII{len(numbers)}d", _BYTE_ORDER, _POLYGON, 1, len(ring), *numbers)


def to_geojson(wkb: bytes) -> dict[str, Any]:
    """What `to_wkb` wrote, as a GeoJSON geometry."""
    _, kind, count = struct.unpack_from("<BII", wkb)
    if kind == _POLYGON:
        return {"type": "Polygon", "coordinates": [_ring(wkb, 0)]}
    coordinates, at = [], 9
    for _ in range(count):
        ring = _ring(wkb, at)
        coordinates.append([ring])
        at += 13 + 16 * len(ring)
    return {"type": "MultiPolygon", "coordinates": coordinates}


def _ring(wkb: bytes, at: int) -> list[list[float]]:
    """That of the polygon that begins there."""
    (n,) = struct.unpack_from("<I", wkb, at + 9)
    numbers = struct.unpack_from(f"<{2 * n}d", wkb, at + 13)
    return [list(point) for point in zip(numbers[::2], numbers[1::2], strict=True)]


def counterclockwise(ring: Ring) -> Ring:
    """The ring in the direction that GeoJSON wants of an outer one."""
    doubled = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))
    return ring if doubled >= 0 else ring[::-1]


def rectangle(west: float, south: float, east: float, north: float) -> Ring:
    """A box's edges."""
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]
