"""The training's parts: each can be left out alone, and nothing else changes with it."""

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training.options import FinetuneClassifierConfig
from rsir_core.errors import ConfigError
from rsir_core.training.recipe import LEFT_OUT, MOST_ZOOM, Part, Recipe, choose_zoom, recipe_without


@pytest.mark.parametrize("part", LEFT_OUT)
def test_a_part_that_is_left_out_changes_its_own_number_only(part: Part) -> None:
    whole, less = asdict(Recipe()), asdict(recipe_without([part]))
    assert [name for name in whole if whole[name] != less[name]] == list(LEFT_OUT[part])


def test_nothing_left_out_is_the_recipe() -> None:
    assert recipe_without([]) == Recipe()


def test_an_unknown_part_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"--without turning,rotation: .*smoothing.*smaller.*turning"):
        FinetuneClassifierConfig(archive="a", models="m", without="turning,rotation")


def test_images_of_one_size_zoom_as_the_recipe_says_also_beside_a_few_others() -> None:
    assert choose_zoom([256.0]) == choose_zoom([256.0] * 95 + [20.0, 5_000.0] * 2) == Recipe().zoom


def test_views_zoom_as_far_as_sizes_differ() -> None:
    sides = [200.0 * 1.6 ** (i / 100) for i in range(101)]
    assert choose_zoom(sides) == pytest.approx(1.6**0.8, abs=0.01)


@given(st.lists(st.floats(1, 1e5), min_size=1), st.floats(0.01, 100))
def test_the_zoom_is_bounded_and_does_not_depend_on_the_unit(sides: list[float], factor: float) -> None:
    zoom = choose_zoom(sides)
    assert Recipe().zoom <= zoom <= MOST_ZOOM
    assert choose_zoom([side * factor for side in sides]) == pytest.approx(zoom, abs=0.011)
