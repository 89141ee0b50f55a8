"""Parts of the classifier's training besides its schedule, each of which can be left out and judged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

Part = Literal["smoothing", "smaller", "turning", "zooming"]
MOST_ZOOM: Final = 2.0  # more would show a quarter of a crop's area
MOST_SIDES: Final = (0.1, 0.9)  # quantiles of the images' sides between which the zoom leads


@dataclass(frozen=True)
class Recipe:
    """Hold the parts of the training, each with the number that controls it.

    Attributes:
        smoothing: share of a label that is spread over all classes.
        smaller: side of the views to that of what is described: faster, and what was learnt is sharper there.
        turned: views are turned by any angle, else by quarters only.
        zoom: ratio of the largest view's sides to the smallest one's, before both are resized.
    """

    smoothing: float = 0.1
    smaller: float = 6 / 7
    turned: bool = True
    zoom: float = 1.25

    def side(self, image_size: int) -> int:
        """Compute the side of the views, in pixels."""
        return round(image_size * self.smaller)


LEFT_OUT: Final[dict[Part, dict[str, Any]]] = {
    "smoothing": {"smoothing": 0.0},
    "smaller": {"smaller": 1.0},
    "turning": {"turned": False},
    "zooming": {"zoom": 1.0},
}


def recipe_without(parts: Sequence[Part]) -> Recipe:
    """Build the recipe, less some of its parts."""
    recipe = Recipe()
    for part in parts:
        recipe = replace(recipe, **LEFT_OUT[part])
    return recipe


def choose_zoom(sides: Sequence[float]) -> float:
    """Choose how far training views zoom: as far as the sizes of most training images differ.

    All images are resized to one size, so what is in an image of half the width looks twice as large. Where all are of
    one size, as in UC Merced, the scale tells classes apart, and a zoom of more than the recipe's loses mAP.

    Args:
        sides: of the images, in pixels; at least one.

    Returns:
        ratio, from the recipe's own zoom to `MOST_ZOOM`.
    """
    small, large = np.quantile(np.asarray(sides, float), MOST_SIDES)
    return round(min(max(float(large / small), Recipe.zoom), MOST_ZOOM), 2)
