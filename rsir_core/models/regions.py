"""Box arithmetic: from the representative object to the key region (paper section 2.1.3, equation 5)."""

from typing import Final, Literal, NamedTuple, get_args

TAU = 0.9  # the paper's best reduction threshold (table 3)
MARGIN = 0.1  # of an object's region, on each side of its box, in longer sides of it
LEAST_SIDE = 32  # pixels: of an object's region, so that the smallest are not enlarged to a blur
GIVEN: Final = "given"  # the class of an object that a person drew
BoxRole = Literal["auto", "object", "centre"]  # of a drawn box, see `DrawnBox`
Views = Literal[1, 2, 4]  # numbers of rotations of a key region that can be averaged, see classifier.py
VIEWS: Final[tuple[Views, ...]] = get_args(Views)
ObjectRule = Literal["confidence", "agreement", "largest", "centre"]  # see representative.py


class Box(NamedTuple):
    """Hold an object's box in pixel coordinates of the image: x to the right, y down; edges, not pixel indices."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def centre(self) -> tuple[float, float]:
        """Return the middle of the box, (x, y)."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


class DrawnBox(NamedTuple):
    """Hold a box that a person drew on a query, and what is described of it.

    Attributes:
        box: its edges.
        is_object: whether the region around it is described, see `object_region`; else the key region centred on it.
    """

    box: Box
    is_object: bool

    @classmethod
    def of(cls, box: Box, role: BoxRole, regions: int) -> "DrawnBox":
        """Decide what is described: by itself, an object finds other objects, and no whole scenes that show it.

        Args:
            box: its edges.
            role: object, centre, or auto: object if the index has regions of objects.
            regions: of each image that the index has at most.
        """
        return cls(box, role == "object" or (role == "auto" and regions > 1))


class DetectedObject(NamedTuple):
    """Hold one detected object: its box in pixels of the image, its confidence in 0..1 and its class name."""

    box: Box
    score: float
    name: str


class Region(NamedTuple):
    """Hold a crop in whole pixels: columns x to x+width, rows y to y+height."""

    x: int
    y: int
    width: int
    height: int


def whole_image(height: int, width: int) -> Region:
    """Return the region that is the image itself."""
    return Region(0, 0, width, height)


def key_region(height: int, width: int, box: Box | None, tau: float = TAU) -> Region:
    """Compute the key region of an image of height × width pixels (equation 5).

    It has tau·H × tau·W pixels, rounded and at least one, and is centred on the representative object `box`, or on the
    image if that is None. It is shifted, never shrunk, to stay inside, so equal images have key regions of equal size.

    Raises:
        ValueError: tau outside (0, 1], or an image without pixels.
    """
    if not 0 < tau <= 1:
        raise ValueError(f"tau is {tau}; it must be above 0 and at most 1")
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height}×{width} pixels has no key region")
    h, w = max(1, round(height * tau)), max(1, round(width * tau))
    centre_x, centre_y = box.centre if box is not None else (width / 2, height / 2)
    return Region(_start(centre_x, w, width), _start(centre_y, h, height), w, h)


def object_tau(height: int, width: int, box: Box, trained_side: int, tau: float = TAU) -> float:
    """Compute the share of height and width for a key region that takes its object's size, in place of a fixed tau.

    The key region holds the box with `MARGIN` around it. It is no larger than the fixed share, and in pixels no smaller
    than the key region of an image that the classifier was trained on, as objects would be enlarged beyond what the
    classifier knows. So images that are no larger than those have the fixed share.

    Args:
        height: of the image.
        width: of the image.
        box: the representative object.
        trained_side: pixels of the longer side of the images that the classifier was trained on.
        tau: the fixed share.
    """
    share = (1 + 2 * MARGIN) * max((box.x1 - box.x0) / width, (box.y1 - box.y0) / height)
    return min(max(share, tau * min(trained_side / max(height, width), 1)), tau)


def object_region(height: int, width: int, box: Box, margin: float = MARGIN, least: int = LEAST_SIDE) -> Region:
    """Compute the region that shows an object in an image of height × width pixels: a square around its box.

    Its side is (1 + 2·margin) times the longer side of the box, and at least `least` pixels. It is shifted to stay
    inside, and shrunk only where the image is smaller.

    Raises:
        ValueError: an image without pixels.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height}×{width} pixels has no region")
    side = max(round((1 + 2 * margin) * max(box.x1 - box.x0, box.y1 - box.y0)), least, 1)
    h, w = min(side, height), min(side, width)
    centre_x, centre_y = box.centre
    return Region(_start(centre_x, w, width), _start(centre_y, h, height), w, h)


def _start(centre: float, length: int, limit: int) -> int:
    return min(max(round(centre - length / 2), 0), limit - length)
