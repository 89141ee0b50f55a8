"""Which outlines meet a polygon, exactly, in degrees of longitude and latitude."""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core.arrays import Mask
from rsir_core.geo.bounding_box import BoundingBox

Corners = tuple[tuple[float, float], ...]  # longitude and latitude each; the last is joined to the first
MARGIN: Final = 1e-5  # degrees by which an outline may lie beyond its bounds, which are rounded


def bounds_of(corners: Corners) -> BoundingBox:
    """Bound a polygon, so widely that the bounds of every outline that meets it meet these."""
    longitudes, latitudes = zip(*corners, strict=True)
    return BoundingBox(
        max(min(longitudes) - MARGIN, -180.0), max(min(latitudes) - MARGIN, -90.0),
        min(max(longitudes) + MARGIN, 180.0), min(max(latitudes) + MARGIN, 90.0),
    )  # fmt: skip


def meet_polygon(corners: Corners, outlines: pa.ChunkedArray, bounds: pa.ChunkedArray) -> Mask:
    """Tell which outlines have a point in common with a polygon, (n,) bool.

    Args:
        corners: of the polygon.
        outlines: WKB; null: the bounds are taken in its stead.
        bounds: structs of west, south, east and north, in this order; west > east: across the antimeridian.
    """
    import shapely  # noqa: PLC0415 -- only searches within a polygon need it

    polygon = shapely.Polygon(corners)
    shapely.prepare(polygon)
    shapes = shapely.from_wkb(outlines.to_numpy())
    missing = np.flatnonzero(shapely.is_missing(shapes))
    found: Mask = shapely.intersects(polygon, shapes)
    if len(missing):
        boxes = bounds.take(pa.array(missing)).combine_chunks()
        found[missing] = _meet_boxes(polygon, *(np.asarray(pc.struct_field(boxes, [i])) for i in range(4)))
    return found


def _meet_boxes(polygon: Any, west: Any, south: Any, east: Any, north: Any) -> Mask:
    import shapely  # noqa: PLC0415

    over = west > east
    first = shapely.box(west, south, np.where(over, 180.0, east), north)
    second = shapely.box(np.where(over, -180.0, west), south, east, north)
    found: Mask = shapely.intersects(polygon, first) | shapely.intersects(polygon, second)
    return found
