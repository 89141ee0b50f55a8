"""Georeferencing: pixels to longitude and latitude by affine transform, ground control points or RPCs."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.rpc import RPC
from rasterio.transform import GCPTransformer, RPCTransformer

from rsir_core.arrays import Doubles

LON_LAT: Final = "OGC:CRS84"

Points = tuple[Doubles, Doubles]  # longitudes and latitudes in degrees; infinite where not on earth


class Placement(NamedTuple):
    """Map a raster's pixels to places on earth.

    Attributes:
        place: maps pixel coordinates x, y (n,), counted from the outer corner of the first pixel, to lon/lat (n,).
        crs: the raster's own reference system: `EPSG:…`, or WKT if it has no code.
        note: how the raster is georeferenced, if by ground control points or RPCs; None: by an affine transform.
    """

    place: Callable[[Doubles, Doubles], Points]
    crs: str
    note: str | None = None


def placement_of(dataset: Any) -> Placement | None:
    """Read the georeference of an open rasterio dataset; None if it has none, or one without relation to the earth."""
    try:
        if dataset.crs is not None and not dataset.transform.is_identity:
            return _by_transform(dataset)
        points, crs = dataset.gcps
        if len(points) >= 3 and crs is not None:
            return _by_control_points(points, crs)
        if (rpcs := dataset.rpcs) is not None:
            return _by_rpcs(rpcs)
    except ProjError:  # for example a local engineering grid
        return None
    return None


def _by_transform(dataset: Any) -> Placement:
    a, b, c, d, e, f, *_ = dataset.transform
    to_degrees = _to_degrees(dataset.crs.to_wkt())
    # In a global grid with pixel centres at the poles, the outer half of those pixels lies beyond the poles.
    beyond = (abs(d) + abs(e)) / 2 if dataset.crs.is_geographic else 0.0

    def place(x: Doubles, y: Doubles) -> Points:
        across, up = a * x + b * y + c, d * x + e * y + f
        if beyond:
            up = np.where((np.abs(up) > 90) & (np.abs(up) <= 90 + beyond * (1 + 1e-9)), np.sign(up) * 90.0, up)
        return to_degrees(across, up)

    return Placement(place, dataset.crs.to_string())


def _by_control_points(points: Any, crs: Any) -> Placement:
    to_degrees = _to_degrees(crs.to_wkt())

    def place(x: Doubles, y: Doubles) -> Points:
        with GCPTransformer(points, tps=True) as transformer:  # a spline, through every point
            across, up = transformer.xy(y, x, offset="ul")
        return to_degrees(np.asarray(across, np.float64), np.asarray(up, np.float64))

    return Placement(place, crs.to_string(), f"placed by {len(points)} ground control points")


def _by_rpcs(rpcs: RPC) -> Placement:
    height = float(rpcs.height_off)

    def place(x: Doubles, y: Doubles) -> Points:
        with RPCTransformer(rpcs, rpc_height=height) as transformer:
            longitude, latitude = transformer.xy(y, x, offset="ul")
        return np.asarray(longitude, np.float64), np.asarray(latitude, np.float64)

    return Placement(place, "EPSG:4326", f"placed by RPCs at a height of {height:g} m, without terrain")


@lru_cache(64)
def _to_degrees(wkt: str) -> Callable[[Doubles, Doubles], Points]:
    """Build the function that converts coordinates of a reference system to longitude and latitude.

    Raises:
        ProjError: the system has no known relation to the earth.
    """
    transformer = Transformer.from_crs(wkt, LON_LAT, always_xy=True)

    def to_degrees(across: Doubles, up: Doubles) -> Points:
        longitude, latitude = transformer.transform(across, up, errcheck=False)
        return np.asarray(longitude, np.float64), np.asarray(latitude, np.float64)

    return to_degrees
