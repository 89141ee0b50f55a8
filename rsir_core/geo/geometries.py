"""Outlines that others drew: geometries in any reference system, in longitude and latitude, and their bounds."""

from typing import Any

import numpy as np
import shapely

from rsir_core.arrays import Doubles
from rsir_core.geo.bounding_box import BoundingBox, around_the_globe

Geometries = np.ndarray[tuple[int], np.dtype[np.object_]]


def to_degrees(geometries: Geometries, crs: str | None) -> Geometries:
    """Reproject geometries (n,) to longitude and latitude; `crs` None: they are in degrees already.

    Raises:
        ValueError: the reference system is unknown.
    """
    if crs is None:
        return geometries
    from rasterio.errors import CRSError  # noqa: PLC0415 -- brings GDAL
    from rasterio.warp import transform  # noqa: PLC0415

    def project(points: Any) -> Any:
        longitudes, latitudes = transform(crs, "OGC:CRS84", points[:, 0], points[:, 1])[:2]
        return np.column_stack([longitudes, latitudes])

    try:
        found: Geometries = shapely.transform(geometries, project)
    except CRSError as error:
        raise ValueError(f"the reference system {crs:.100} is unknown: {error}") from error
    return found


def bounds_of(geometries: Geometries) -> list[BoundingBox | None]:
    """Compute the bounds of geometries in degrees; None: it is missing, empty or not on earth.

    Several parts that meet ±180° from both sides are one across the antimeridian, as in GeoJSON.
    """
    edges = shapely.bounds(geometries)
    around = (edges[:, 0] == -180) & (edges[:, 2] == 180) & (shapely.get_num_geometries(geometries) > 1)
    for i in np.flatnonzero(around):
        edges[i, 0], edges[i, 2] = _beside_the_widest_gap(shapely.bounds(shapely.get_parts(geometries[i])))
    return [around_the_globe(BoundingBox(*edge)) for edge in edges.tolist()]


def _beside_the_widest_gap(parts: Doubles) -> tuple[float, float]:
    """Return west and east of parts that go around ±180°, bounds (n, 4): all longitudes but the most that none has."""
    order = parts[:, 0].argsort()
    starts, ends = parts[order, 0], np.maximum.accumulate(parts[order, 2])
    gaps = starts[1:] - ends[:-1]  # between the last and the first there is none: they meet at ±180°
    widest = int(gaps.argmax())
    return (-180.0, 180.0) if gaps[widest] <= 0 else (float(starts[widest + 1]), float(ends[widest]))
