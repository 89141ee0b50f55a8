"""Parts of the classifier's training besides its schedule; those of `LEFT_OUT` can be left out and judged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

Part = Literal["smoothing", "smaller", "turning"]


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
    zoom: float = 1.25  # 1.6 lost mAP on UC Merced

    def side(self, image_size: int) -> int:
        """Compute the side of the views, in pixels."""
        return round(image_size * self.smaller)


LEFT_OUT: Final[dict[Part, dict[str, Any]]] = {
    "smoothing": {"smoothing": 0.0},
    "smaller": {"smaller": 1.0},
    "turning": {"turned": False},
}


def recipe_without(parts: Sequence[Part]) -> Recipe:
    """Build the recipe, less some of its parts."""
    recipe = Recipe()
    for part in parts:
        recipe = replace(recipe, **LEFT_OUT[part])
    return recipe
