"""Bounds of outlines around the antimeridian."""

import numpy as np
import pytest
import shapely

from rsir_core.geo.geometries import bounds_of


def bounds(*spans: tuple[float, float]) -> tuple[float, float]:
    parts = shapely.MultiPolygon([shapely.box(west, 0, east, 1) for west, east in spans])
    (found,) = bounds_of(np.array([parts], object))
    assert found is not None
    return found.west, found.east


@pytest.mark.parametrize(
    ("spans", "wanted"),
    [
        ([(170, 180), (-180, -175)], (170, -175)),
        ([(150, 160), (170, 180), (-180, -175)], (150, -175)),  # one part does not touch ±180°
        ([(170, 180), (-180, -175), (-170, -160)], (170, -160)),
        ([(-180, -100), (-120, 50), (100, 180)], (100, 50)),  # parts that overlap
        ([(-180, 20), (10, 180)], (-180, 180)),
        ([(10, 20), (30, 40)], (10, 40)),
    ],
)
def test_bounds_leave_out_the_widest_gap_of_longitudes(
    spans: list[tuple[float, float]], wanted: tuple[float, float]
) -> None:
    assert bounds(*spans) == wanted == bounds(*reversed(spans))
