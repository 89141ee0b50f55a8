"""Footprints: the outline and bounds of an image on the ground, in longitude and latitude."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
import shapely
from rasterio.windows import Window
from shapely import MultiPolygon, Polygon

from rsir_core.arrays import Doubles
from rsir_core.geo.bounding_box import BoundingBox, around_the_globe
from rsir_core.geo.placement import Placement, Points, placement_of

SEGMENTS: Final = 32  # per side of the raster's edge, to compute bounds
MAX_SEGMENTS: Final = 1024  # per side of an outline
LATTICE: Final = 65  # sample points across and down a raster
Frame = tuple[float, float, float, float]  # x, y, width, height in pixels


class Footprint(NamedTuple):
    """Describe the ground that an image shows.

    Attributes:
        bbox: its bounds.
        polygon: its outline as WKB in lon/lat; a MultiPolygon of two where it crosses the antimeridian.
        crs: the raster's own reference system: `EPSG:…`, or WKT if it has no code.
        note: how the raster is georeferenced, if by ground control points or RPCs; None: by an affine transform.
    """

    bbox: BoundingBox
    polygon: bytes
    crs: str
    note: str | None = None


def footprint_of(dataset: Any, window: Window | None = None) -> Footprint | None:
    """Compute the footprint of an open rasterio dataset or of a window of it; None if it is not georeferenced on earth.

    The bounds contain the centre of every pixel that is on earth. They are computed from points along the whole edge
    or, if part of the edge is off the earth (full disks of geostationary satellites, global projections), from points
    all over the raster.
    """
    placement = placement_of(dataset)
    if placement is None:
        return None
    frame = (0, 0, dataset.width, dataset.height) if window is None else window.flatten()
    longitudes, latitudes = placement.place(*edge(*frame))
    if np.isfinite(longitudes).all() and np.isfinite(latitudes).all():
        longitudes = np.unwrap(longitudes, period=360)
        found: BoundingBox | None = _around(longitudes, latitudes)
    else:
        found = _of_what_is_on_earth(*placement.place(*lattice(*frame)))
    bbox = found and around_the_globe(found)
    if bbox is None:
        return None
    if _is_one_ring(longitudes, latitudes, bbox):
        outline: Polygon | MultiPolygon = _outline(placement, frame, bbox)
    elif bbox.west > bbox.east:
        outline = MultiPolygon([shapely.box(*bbox[:2], 180.0, bbox.north), shapely.box(-180.0, *bbox[1:])])
    else:
        outline = shapely.box(*bbox)
    return Footprint(bbox, shapely.to_wkb(shapely.orient_polygons(outline)), placement.crs, placement.note)


def edge(x: float, y: float, width: float, height: float, segments: int = SEGMENTS) -> Points:
    """Return pixel coordinates of points along a rectangle's edge, `segments` per side; the last point is the first."""
    steps = np.arange(segments) / segments
    ones = np.ones(segments)
    xs = np.concatenate([steps * 0, steps, ones, 1 - steps, [0]]) * width + x
    ys = np.concatenate([steps, ones, 1 - steps, steps * 0, [0]]) * height + y
    return xs, ys


def lattice(x: float, y: float, width: float, height: float) -> Points:
    """Return pixel coordinates of `LATTICE` × `LATTICE` points all over a rectangle, row by row."""
    steps = np.linspace(0, 1, LATTICE)
    xs, ys = np.meshgrid(steps * width + x, steps * height + y)
    return xs.ravel(), ys.ravel()


def _around(longitudes: Doubles, latitudes: Doubles) -> BoundingBox:
    """Bound what a closed line of points encloses; its longitudes are unwrapped."""
    south, north = _ends(latitudes)
    if np.abs(latitudes).max() <= 90:  # nothing between two points lies beyond a pole
        south, north = max(south, -90.0), min(north, 90.0)
    if abs(longitudes[-1] - longitudes[0]) > 180:  # the line goes once around a pole
        is_south = np.mean(latitudes) < 0
        return BoundingBox(-180.0, -90.0 if is_south else south, 180.0, north if is_south else 90.0)
    west, east = _ends(longitudes)
    return BoundingBox(west, south, east, north)


def _ends(values: Doubles) -> tuple[float, float]:
    """Bound the values along an edge, also between its points, where each side is close to a parabola."""
    sides = np.stack([values[i * SEGMENTS : (i + 1) * SEGMENTS + 1] for i in range(4)])
    bend = np.abs(np.diff(sides, 2)).max() / 8
    bend = bend if bend > 1e-9 else 0.0
    return float(values.min() - bend), float(values.max() + bend)


def _of_what_is_on_earth(longitudes: Doubles, latitudes: Doubles) -> BoundingBox | None:
    """Bound the lattice points that are on earth, with a margin of one step towards those that are not."""
    there = np.isfinite(longitudes) & np.isfinite(latitudes)
    if not there.any():
        return None
    turns, heights = (np.where(there, values, np.nan).reshape(LATTICE, LATTICE) for values in (longitudes, latitudes))
    step = max(_largest_step((np.diff(turns, axis=axis) + 180) % 360 - 180 for axis in (0, 1)), 1e-9)
    rise = _largest_step(np.diff(heights, axis=axis) for axis in (0, 1))
    known = np.sort(np.mod(longitudes[there], 360))
    gaps = np.diff(known, append=known[0] + 360)
    widest = int(gaps.argmax())
    south, north = max(-90.0, latitudes[there].min() - rise), min(90.0, latitudes[there].max() + rise)
    if gaps[widest] <= 2 * step or max(-south, north) >= 90:  # all around the globe, or a pole is inside
        return BoundingBox(-180.0, float(south), 180.0, float(north))
    west, span = known[(widest + 1) % len(known)] - step, 360 - gaps[widest] + 2 * step
    west = (west + 180) % 360 - 180
    return BoundingBox(float(west), float(south), float(west + span), float(north))


def _largest_step(steps: Iterable[Doubles]) -> float:
    found = [np.nanmax(np.abs(step)) for step in steps if not np.isnan(step).all()]
    return float(max(found, default=180.0))


def _is_one_ring(longitudes: Doubles, latitudes: Doubles, bbox: BoundingBox) -> bool:
    """Tell whether points along an edge form a simple ring in lon/lat; at a pole they do not."""
    return bool(
        bbox.west <= bbox.east
        and np.isfinite(longitudes).all()
        and np.isfinite(latitudes).all()
        and np.ptp(longitudes) < 180
        and longitudes.min() >= bbox.west - 1e-6
        and longitudes.max() <= bbox.east + 1e-6
    )


def _outline(placement: Placement, frame: Frame, bbox: BoundingBox) -> Polygon:
    """Return the polygon with the fewest points that still contains the centres of all outer pixels.

    Four corners if the edge is straight enough, else 2, 4, 8, … points per side.
    """
    segments = 1
    while True:
        ring = _ring(placement, edge(*frame, segments))
        if segments == MAX_SEGMENTS or _holds_outer_pixels(ring, placement, frame):
            longitudes, latitudes = ring
            return Polygon(np.column_stack([longitudes, np.clip(latitudes, bbox.south, bbox.north)]))
        segments *= 2


def _ring(placement: Placement, points: Points) -> Points:
    """Convert points of a closed line to lon/lat with unwrapped longitudes."""
    longitudes, latitudes = placement.place(*points)
    return np.unwrap(longitudes, period=360), latitudes


def _holds_outer_pixels(ring: Points, placement: Placement, frame: Frame) -> bool:
    """Tell whether the centres of the outer pixels lie on the inner side of the nearest segment of the ring."""
    x, y, width, height = frame
    longitudes, latitudes = ring
    segments = len(longitudes) // 4
    samples = max(SEGMENTS, 4 * segments)  # per side
    xs, ys = edge(*frame, samples)
    centres = np.clip(xs, x + 0.5, x + width - 0.5), np.clip(ys, y + 0.5, y + height - 0.5)
    inner_longitudes, inner_latitudes = _ring(placement, centres)
    i = np.arange(4 * samples) // (samples // segments)
    across, up = np.diff(longitudes)[i], np.diff(latitudes)[i]
    inward = across * (inner_latitudes[:-1] - latitudes[i]) - up * (inner_longitudes[:-1] - longitudes[i])
    turn = np.sum(longitudes[:-1] * latitudes[1:] - longitudes[1:] * latitudes[:-1])  # > 0: counterclockwise
    return bool((inward * np.sign(turn) >= 0).all())
