import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.models.regions import Box, Region, key_region, object_region, object_tau, whole_image

sides = st.integers(1, 3000)
taus = st.floats(0.01, 1.0)
edges = st.floats(-500, 3500)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = sorted([draw(edges), draw(edges)]), sorted([draw(edges), draw(edges)])
    return Box(x[0], y[0], x[1], y[1])


@given(sides, sides, st.none() | boxes(), taus)
def test_lies_inside_and_has_the_size_of_equation_5(height: int, width: int, box: Box | None, tau: float) -> None:
    region = key_region(height, width, box, tau)
    assert 0 <= region.x <= region.x + region.width <= width
    assert 0 <= region.y <= region.y + region.height <= height
    assert abs(region.width - tau * width) <= 1 and abs(region.height - tau * height) <= 1
    assert region.width >= 1 and region.height >= 1


@given(sides, sides, boxes(), boxes(), taus)
def test_all_images_of_one_size_have_key_regions_of_one_size(
    height: int, width: int, one: Box, other: Box, tau: float
) -> None:
    a, b = key_region(height, width, one, tau), key_region(height, width, other, tau)
    assert (a.width, a.height) == (b.width, b.height)


@given(sides, sides, boxes(), taus)
def test_is_the_inside_crop_nearest_to_the_object(height: int, width: int, box: Box, tau: float) -> None:
    region = key_region(height, width, box, tau)
    for start, length, limit, centre in (
        (region.x, region.width, width, box.centre[0]),
        (region.y, region.height, height, box.centre[1]),
    ):
        wanted = centre - length / 2
        allowed = min(max(wanted, 0), limit - length)
        assert abs(start - allowed) <= 0.5


@given(sides, sides, boxes())
def test_tau_one_is_the_whole_image_whatever_the_object(height: int, width: int, box: Box) -> None:
    assert key_region(height, width, box, 1.0) == whole_image(height, width)


@given(sides, sides, boxes(), taus, st.integers(1, 4000))
def test_a_tau_of_the_objects_size_is_fixed_up_to_the_size_of_training_images_and_shows_the_object_in_larger_ones(
    height: int, width: int, box: Box, tau: float, trained_side: int
) -> None:
    found = object_tau(height, width, box, trained_side, tau)
    assert 0 < found <= tau
    if max(height, width) <= trained_side:
        assert found == tau
    else:
        assert found * max(height, width) >= tau * trained_side * (1 - 1e-9)
    if found < tau:
        assert found * width >= box.x1 - box.x0 and found * height >= box.y1 - box.y0
    larger = Box(box.x0, box.y0, box.x1 + 10, box.y1)
    assert object_tau(height, width, larger, trained_side, tau) >= found


def test_worked_examples() -> None:
    assert key_region(256, 256, None) == Region(13, 13, 230, 230)
    assert key_region(100, 200, Box(190, 0, 200, 10), 0.5) == Region(100, 0, 100, 50)
    assert key_region(100, 200, Box(95, 45, 105, 55), 0.5) == Region(50, 25, 100, 50)
    assert object_tau(500, 1000, Box(0, 0, 400, 50), 256) == pytest.approx(1.2 * 0.4)
    assert object_tau(500, 1000, Box(0, 0, 10, 10), 256) == pytest.approx(0.9 * 0.256)


@pytest.mark.parametrize("tau", [0.0, -1.0, 1.01, float("nan")])
def test_refuses_a_tau_that_is_no_share(tau: float) -> None:
    with pytest.raises(ValueError, match="tau"):
        key_region(10, 10, None, tau)


def test_refuses_an_image_without_pixels() -> None:
    with pytest.raises(ValueError, match="0×7"):
        key_region(0, 7, None)


@given(sides, sides, boxes(), st.floats(0, 2), st.integers(1, 200))
def test_an_objects_region_is_the_square_around_it_inside_the_image(
    height: int, width: int, box: Box, margin: float, least: int
) -> None:
    region = object_region(height, width, box, margin, least)
    side = max((1 + 2 * margin) * max(box.x1 - box.x0, box.y1 - box.y0), least)
    for start, length, limit, centre in (
        (region.x, region.width, width, box.centre[0]),
        (region.y, region.height, height, box.centre[1]),
    ):
        assert abs(length - min(side, limit)) <= 0.5
        assert abs(start - min(max(centre - length / 2, 0), limit - length)) <= 0.5


def test_values_of_objects_regions() -> None:
    assert object_region(500, 800, Box(300, 200, 400, 240), 0.5, 64) == Region(250, 120, 200, 200)
    assert object_region(500, 800, Box(300, 200, 310, 206), 0.5, 64) == Region(273, 171, 64, 64)
    assert object_region(100, 800, Box(0, 0, 90, 90), 0.5, 64) == Region(0, 0, 180, 100)
