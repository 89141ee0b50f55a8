"""From what a user calls an image to its pixels."""

import os
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from rsir_core.arrays import Pixels
from rsir_core.errors import QueryError
from rsir_core.imagery.decode import decode, read_picture
from rsir_core.imagery.opened import picture_of
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.rgb import check_size

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    ImageLike = str | os.PathLike[str] | bytes | Image.Image | Pixels

FORMS: Final = "a path, a URI, bytes of a file, a PIL image, or an array of H×W×3 uint8"


def is_image_like(value: Any) -> "TypeIs[ImageLike]":
    """Tell whether a value is one image, and no collection of some."""
    return isinstance(value, (str, os.PathLike, bytes, Image.Image, np.ndarray))


def is_vector(value: Any) -> "TypeIs[Sequence[float]]":
    """Tell whether a value is one embedding: an array of one axis, or a list or tuple of numbers."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(x, Real) for x in value)


def read_image(image: "ImageLike", max_pixels: int) -> Picture:
    """Read an image in any of its forms.

    Raises:
        ImageError: a file or an opened image cannot become a picture, or it has too many pixels.
        QueryError: it is none of `FORMS`, or an array of another shape or type.
    """
    if isinstance(image, bytes):
        return decode(image, "the image", max_pixels)
    if isinstance(image, (str, os.PathLike)):
        return read_picture(os.fspath(image), max_pixels)
    if isinstance(image, Image.Image):
        return picture_of(image, "the image", max_pixels)
    if not isinstance(image, np.ndarray):
        raise QueryError(f"the image is of type {type(image).__name__}; give {FORMS}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise QueryError(f"the image is an array of {'×'.join(map(str, image.shape))} {image.dtype}; give H×W×3 uint8")
    check_size("the image", image.shape[0] * image.shape[1], max_pixels)
    return Picture(np.ascontiguousarray(image), None)
