"""How many passes are chosen for how many training images."""

import pytest

from rsir_core.training.schedule import FEWEST_PASSES, LEAST_SEEN, MOST_PASSES, MOST_SEEN, PASSES, choose_epochs


@pytest.mark.parametrize("images", [1_000, 1_008, 1_050, 2_000, 4_000])
def test_around_what_it_was_tuned_on_nothing_changes(images: int) -> None:
    assert choose_epochs(images) == PASSES == 30


def test_few_images_get_steps_enough_and_many_end_in_time() -> None:
    sizes = sorted({*range(1, 2_000), *range(2_000, 60_000, 97)})
    chosen = [choose_epochs(images) for images in sizes]
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0] == MOST_PASSES and choose_epochs(10**7) == FEWEST_PASSES
    for images, epochs in zip(sizes, chosen, strict=True):
        rounding = images / 2
        assert images * epochs >= LEAST_SEEN - rounding or epochs == MOST_PASSES
        assert images * epochs <= MOST_SEEN + rounding or epochs == FEWEST_PASSES
