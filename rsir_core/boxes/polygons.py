"""Polygons in pixels of an image: what of one is inside, and the upright box around it."""

from rsir_core.models.regions import Box

Corner = tuple[float, float]  # x, y
Corners = tuple[Corner, ...]


def around(corners: Corners) -> Box | None:
    """Find the upright box around a polygon; None: it has no corner."""
    if not corners:
        return None
    xs, ys = zip(*corners, strict=True)
    return Box(min(xs), min(ys), max(xs), max(ys))


def clipped(corners: Corners, height: int, width: int) -> Corners:
    """Clip a polygon to an image (Sutherland and Hodgman 1974); what is left may be nothing."""
    for axis, edge, side in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        corners = _cut(corners, axis, edge, side)
    return corners


def _cut(corners: Corners, axis: int, edge: float, side: int) -> Corners:
    """Keep what of a polygon is at or above an edge along an axis (side 1), or at or below it (side −1)."""
    kept: list[Corner] = []
    for a, b in zip((*corners[-1:], *corners[:-1]), corners, strict=True):
        before, now = (side * (corner[axis] - edge) for corner in (a, b))
        if before * now < 0:
            share = before / (before - now)
            kept.append((a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])))
        if now >= 0:
            kept.append(b)
    return tuple(kept)
