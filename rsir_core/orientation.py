"""Which way up a picture is to be seen: the orientation of EXIF."""

import struct
from contextlib import suppress

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # H×W×3


def upright(pixels: Pixels, exif: bytes) -> Pixels:
    """The picture as EXIF orientation (1 to 8) says it is to be seen."""
    orientation = _orientation(exif.removeprefix(b"Exif\0\0"))
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _orientation(tiff: bytes) -> int:
    """The orientation tag in the first directory of a TIFF, which EXIF is too; 1 where it cannot be had.

    By hand, since Pillow's EXIF warns and fails on what else may be wrong in it, and GDAL keeps this tag to itself.
    """
    with suppress(KeyError, struct.error):  # not a TIFF; cut off
        order = {b"II*\0": "<", b"MM\0*": ">"}[tiff[:4]]
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if (tag, kind) == (0x0112, 3):  # Orientation, SHORT
                return value if 1 <= value <= 8 else 1
    return 1
