"""Letterboxing: scale and pad an image to the detector's input, and map boxes back."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from rsir_core.models.regions import Box

STRIDE: Final = 32  # of the coarsest feature map; sides of the input must be multiples of it


class Letterbox(NamedTuple):
    """Hold an image's place in the network's input: scaled to the longer side, centred, padded to the stride."""

    image_height: int
    image_width: int
    scaled_height: int
    scaled_width: int
    height: int
    width: int

    @property
    def scaled(self) -> bool:
        """Tell whether the image is enlarged or reduced."""
        return (self.image_height, self.image_width) != (self.scaled_height, self.scaled_width)

    @property
    def padded(self) -> bool:
        """Tell whether there is padding around the image."""
        return (self.scaled_height, self.scaled_width) != (self.height, self.width)

    @property
    def top(self) -> int:
        """Rows of padding above the image."""
        return (self.height - self.scaled_height) // 2

    @property
    def left(self) -> int:
        """Columns of padding left of the image."""
        return (self.width - self.scaled_width) // 2

    def to_image(self, box: Sequence[float]) -> Box:
        """Map a box (x centre, y centre, width, height) of the network's input to a box of the image, clipped to it."""
        x, y, w, h = box
        across, down = self.image_width / self.scaled_width, self.image_height / self.scaled_height
        xs = [min(max((x + side * w / 2 - self.left) * across, 0.0), float(self.image_width)) for side in (-1, 1)]
        ys = [min(max((y + side * h / 2 - self.top) * down, 0.0), float(self.image_height)) for side in (-1, 1)]
        return Box(xs[0], ys[0], xs[1], ys[1])


def letterbox(height: int, width: int, size: int) -> Letterbox:
    """Compute the letterbox of an image of height × width pixels for a network input whose longer side is `size`.

    As in ultralytics' validation, the image is enlarged or reduced with its proportions and padded only to the next
    multiple of the stride, so elongated images cost less than squares.
    """
    scale = size / max(height, width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    return Letterbox(height, width, h, w, -(-h // STRIDE) * STRIDE, -(-w // STRIDE) * STRIDE)
