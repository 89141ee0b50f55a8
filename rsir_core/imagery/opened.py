"""Images that Pillow has opened, and what is said of those that cannot be decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from rsir_core.errors import ImageError
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.rgb import Noted, blacken, check_size, refusal, refused

DEEP: Final = ("I", "F")  # modes, and beginnings of modes, of more than 8 bits, which Pillow clips as it converts


def picture_of(image: Image.Image, name: str, max_pixels: int) -> Picture:
    """Convert an image that somebody has opened, to the pixels that its file would give.

    Raises:
        ImageError: stage `decode`; kind `too_large`, `unsupported` (more than 8 bits), `memory` or `corrupt`.
    """
    if image.mode.startswith(DEEP):
        how = "which only its file can be stretched from; pass its path or its bytes"
        raise refused(name, "unsupported", f"has samples of more than 8 bits (mode {image.mode}), {how}")
    check_size(name, image.height * image.width, max_pixels)
    with refusing(name):
        pixels, notes = rgb_of(ImageOps.exif_transpose(image), name)
    return Picture(np.ascontiguousarray(pixels), "; ".join(notes) or None)


def rgb_of(image: Image.Image, name: str) -> Noted:
    """Convert to RGB, with pixels black that are wholly transparent, as `blacken` does and says."""
    if not image.has_transparency_data:
        return np.array(image.convert("RGB")), []
    rgba = np.array(image.convert("RGBA"))
    pixels = rgba[..., :3]
    return pixels, blacken(pixels, rgba[..., 3] > 0, name)


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """Explain whatever a decoder raises as an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise refused(name, "memory", "does not fit into memory; lower the pixel limit") from error
    except Image.DecompressionBombError as error:  # Pillow's GIF and WebP readers check as they open
        raise refused(name, "too_large", f"has too many pixels ({error}); make it smaller") from error
    except Exception as error:  # on broken files decoders raise nearly every built-in error and their own
        raise refusal(name, error, "lower the pixel limit") from error
