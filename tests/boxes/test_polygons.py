"""What is left of a polygon is what is in both: its points are, and its area is that of the common part."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.boxes.polygons import Corners, around, clipped
from rsir_core.models.regions import Box

HEIGHT, WIDTH = 40, 60
corners = st.tuples(st.integers(-80, 120), st.integers(-60, 90)).map(lambda c: (float(c[0]), float(c[1])))


def area(polygon: Corners) -> float:
    turned = (*polygon[1:], *polygon[:1])
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(polygon, turned, strict=True))) / 2


def in_triangle(points: npt.NDArray[np.float64], polygon: Corners) -> npt.NDArray[np.bool_]:
    a, b, c = (np.array(corner) for corner in polygon)
    signs = [(q - p)[0] * (points - p)[:, 1] - (q - p)[1] * (points - p)[:, 0] for p, q in ((a, b), (b, c), (c, a))]
    inside: npt.NDArray[np.bool_] = np.all([s >= 0 for s in signs], axis=0) | np.all([s <= 0 for s in signs], axis=0)
    return inside


@given(st.tuples(corners, corners, corners))
def test_what_is_left_of_a_triangle_covers_what_it_covers_of_the_image(triangle: Corners) -> None:
    left = clipped(triangle, HEIGHT, WIDTH)
    assert all(-1e-9 <= x <= WIDTH + 1e-9 and -1e-9 <= y <= HEIGHT + 1e-9 for x, y in left)
    y, x = np.mgrid[0.125:HEIGHT:0.25, 0.125:WIDTH:0.25]
    covered = in_triangle(np.stack([x.ravel(), y.ravel()], axis=1), triangle).sum() / 16
    size = area(triangle)
    if size > 0:
        assert area(left) == pytest.approx(covered, abs=45)  # of a grid, along three sides
    if (box := around(left)) is not None and size > 0 and covered > 100:
        inside = in_triangle(np.stack([x.ravel(), y.ravel()], axis=1), triangle)
        assert box.x0 - 1 <= x.ravel()[inside].min() and x.ravel()[inside].max() <= box.x1 + 1


def test_a_polygon_inside_stays_and_one_outside_goes() -> None:
    inside = ((1.0, 2.0), (50.0, 3.0), (20.0, 39.0))
    assert set(clipped(inside, HEIGHT, WIDTH)) == set(inside)
    assert clipped(((70.0, 0.0), (90.0, 0.0), (80.0, 10.0)), HEIGHT, WIDTH) == ()
    assert around(()) is None and around(inside) == Box(1, 2, 50, 39)
