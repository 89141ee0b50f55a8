"""Image orientation from EXIF, XMP and TIFF tags."""

import io
import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Final

from rsir_core.arrays import Pixels

Metadata = Mapping[Any, Any]  # Pillow's `image.info`

_TAG: Final = 0x0112
_VALUES: Final = {1: "B", 3: "H", 4: "I"}  # TIFF's BYTE, SHORT and LONG in `struct`'s notation
_XMP: Final = re.compile(rb"tiff:Orientation(?:=\"|>)([0-9])")


def upright(pixels: Pixels, metadata: Metadata) -> Pixels:
    """Rotate a picture upright by its EXIF orientation, else by XMP, as Pillow's `exif_transpose` does."""
    exif: bytes = metadata.get("exif", b"")
    found = _tag(io.BytesIO(exif.removeprefix(b"Exif\0\0")))
    if found is None and (xmp := _XMP.search(_xmp(metadata))) is not None:
        found = int(xmp[1])
    return turned(pixels, found or 1)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Rotate a picture upright that is stored in an orientation (1 to 8; other values count as 1)."""
    if 5 <= orientation <= 8:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def orientation_in(tiff: BinaryIO) -> int:
    """Read the orientation (1 to 8) of a TIFF's first page, which GDAL does not report; 1 if there is none."""
    found = _tag(tiff)
    return found if found is not None and 1 <= found <= 8 else 1


def _xmp(metadata: Metadata) -> bytes:
    found = metadata.get("xmp", metadata.get("XML:com.adobe.xmp", b""))
    return found.encode() if isinstance(found, str) else bytes(found)


def _tag(tiff: BinaryIO) -> int | None:
    """Read the orientation tag in the first directory of a TIFF (EXIF data is one too); None if it has none.

    This is not done by Pillow, because its EXIF parser warns and fails on other defects in the same data.
    """
    with suppress(KeyError, struct.error):  # not a TIFF, or truncated
        head = tiff.read(16)
        order = {b"II": "<", b"MM": ">"}[head[:2]]
        (version,) = struct.unpack_from(order + "H", head, 2)
        # In a BigTIFF, offsets and counts have 8 bytes.
        place, counted, entry = {42: ("I", "H", "HHI4s"), 43: ("Q", "Q", "HHQ8s")}[version]
        (start,) = struct.unpack_from(order + place, head, 4 if version == 42 else 8)
        tiff.seek(start)
        (count,) = struct.unpack(order + counted, tiff.read(struct.calcsize(order + counted)))
        size = struct.calcsize(order + entry)
        entries = tiff.read(min(count, 65_535) * size)
        for at in range(0, len(entries) - size + 1, size):
            tag, kind, _, value = struct.unpack_from(order + entry, entries, at)
            if tag == _TAG and kind in _VALUES:
                return int(struct.unpack_from(order + _VALUES[kind], value)[0])
    return None
