"""The training's parts: each can be left out alone, and nothing else changes with it."""

from dataclasses import asdict

import pytest

from jobs.training.options import FinetuneClassifierConfig
from rsir_core.errors import ConfigError
from rsir_core.training.recipe import LEFT_OUT, Part, Recipe, recipe_without


@pytest.mark.parametrize("part", LEFT_OUT)
def test_a_part_that_is_left_out_changes_its_own_number_only(part: Part) -> None:
    whole, less = asdict(Recipe()), asdict(recipe_without([part]))
    assert [name for name in whole if whole[name] != less[name]] == list(LEFT_OUT[part])


def test_nothing_left_out_is_the_recipe() -> None:
    assert recipe_without([]) == Recipe()


def test_an_unknown_part_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"--without turning,rotation: .*smoothing.*smaller.*turning"):
        FinetuneClassifierConfig(archive="a", models="m", without="turning,rotation")
