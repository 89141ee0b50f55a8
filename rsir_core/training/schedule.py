"""How long a classifier is trained: chosen by the number of its training images."""

from typing import Final

PASSES: Final = 30  # over 1,000 images, as tuned on UC Merced
LEAST_SEEN: Final = 30_000  # images over all passes: some 930 steps of 32, so that few images are learnt as well
MOST_SEEN: Final = 120_000  # 45 minutes of EfficientNet-Lite0 on 2 cores, for each of the trainings that are averaged
MOST_PASSES: Final = 100
FEWEST_PASSES: Final = 3


def choose_epochs(images: int) -> int:
    """Choose how many passes over the training images suit their number: 30 for 1,000 to 4,000 images.

    Of fewer images there are more passes, up to 100, so that training has steps enough to converge; of more there are
    fewer, down to 3, so that its time is bounded.

    Args:
        images: to train on, at least 1.
    """
    seen = min(max(PASSES * images, LEAST_SEEN), MOST_SEEN)
    return min(max(round(seen / images), FEWEST_PASSES), MOST_PASSES)
