"""Decode image files of any supported format and sample type to 8-bit RGB.

Pixels become black if they are nodata or NaN (in rasters whose samples are stretched) or hidden by an alpha band or
mask. Alpha means coverage here (the ragged edge of an orthophoto), not paint: partly transparent pixels keep their
colour, because there is no background to blend with.
"""

import io
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from typing import Any, Final, Self

import numpy as np
import rasterio
import simplejpeg
from PIL import ImageCms, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from rasterio.enums import PhotometricInterp

from rsir_core.arrays import Pixels
from rsir_core.geo.acquisition_time import time_of
from rsir_core.geo.footprint import footprint_of
from rsir_core.geo.placement import placement_of
from rsir_core.imagery.cell_tile import read_cell
from rsir_core.imagery.composite import Composite
from rsir_core.imagery.opened import refusing, rgb_of
from rsir_core.imagery.orientation import Metadata, orientation_in, turned, upright
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.rgb import (
    GDAL,
    MAX_PIXELS,
    PER_PIXEL,
    Decoded,
    Noted,
    check_blocks,
    check_size,
    colour_bands,
    quiet,
    refused,
    rgb,
)
from rsir_core.imagery.scene_file import JPEG_2000, TIFF, open_scene
from rsir_core.imagery.tile_uri import CellTile, orientation_of_scene, parse_tile, read_tile, read_whole
from rsir_core.imagery.vrt_file import is_vrt
from rsir_core.storage.reading import read_file

MAX_SCANS: Final = 100  # of a JPEG, GDAL's limit; encoders write about ten. Each is a pass over all pixels
# Cameras and archives pad files there. A file damaged in the middle can look the same; other decoders accept both.
_BEFORE_ITS_END: Final = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_SCAN: Final = b"\xff\xda"  # start of scan; this marker cannot occur within entropy-coded data
_OTHER_KINDS: Final = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"<": "HTML or XML",
}
Decoder = Callable[[bytes, str, int], Decoded]  # of data, name, max_pixels


def read_picture(uri: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read and decode a file, a composite, or the window of a scene that a tile's URI names.

    Raises:
        ImageError: as `read_file` (`too_large` above 16 bytes per allowed pixel) and `decode`; for a tile
            or a composite as `open_scene` and `read_tile`.
    """
    with Pictures() as pictures:
        return pictures.read(uri, max_pixels)


class Pictures:
    """Read one picture after another; the scene of the last tile stays open for the next tile."""

    def __init__(self) -> None:
        self._opened, self._scene, self._dataset, self._orientation = ExitStack(), "", None, 1

    def read(self, uri: str, max_pixels: int = MAX_PIXELS) -> Picture:
        """Read an image; see `read_picture`."""
        tile = parse_tile(uri)
        if tile is None:
            return _read_image(uri, max_pixels)
        if self._scene != tile.scene:
            self.close()
            self._dataset = self._opened.enter_context(open_scene(tile.scene))
            self._orientation = orientation_of_scene(self._dataset, tile.scene)
            self._scene = tile.scene
        try:
            if isinstance(tile, CellTile):
                read = read_cell(self._dataset, tile, max_pixels)
                return replace(_picture(read.decoded), window=read.window, cell=tile.cell, covered=read.covered)
            found = read_tile(self._dataset, tile, max_pixels, self._orientation)
            return replace(_picture(found), window=tile.window)
        except Exception as error:  # reopen for the next tile: the dataset or its connection may be broken
            self._scene = ""
            self._opened.__exit__(type(error), error, error.__traceback__)  # `open_scene` explains it
            raise

    def close(self) -> None:
        """Close the scene."""
        self._scene = ""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read_image(uri: str, max_pixels: int) -> Picture:
    composite = Composite.parse(uri)
    if composite is None and not is_vrt(uri):
        return decode(read_file(uri, PER_PIXEL * max_pixels), uri, max_pixels)
    with open_scene(uri) as dataset:
        return _picture(read_whole(dataset, uri, None if composite is None else composite.stretch, max_pixels))


@cache
def _pictures() -> Pictures:
    return Pictures()


def read_in_turn(uri: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read like `read_picture`, for a process of its own: consecutive tiles of one scene open it once."""
    return _pictures().read(uri, max_pixels)


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a file's bytes by their signature, not by the file's extension.

    Formats: JPEG (any colour space), PNG, WebP, GIF, BMP; TIFF, GeoTIFF and JPEG 2000 of any real sample type.
    8-bit values are kept; other types are stretched from percentiles 2 and 98 of the valid samples, with one range for
    all three bands so that hues are kept. Bands are those marked red, green and blue, else the first three, else the
    first as grey. EXIF orientation is applied (in a TIFF only if it is not georeferenced). Of several pages or frames
    the first is taken.

    Raises:
        ImageError: stage `decode`; kind `empty`, `too_large` (found before allocating), `unsupported`, `no_data`, or
            `corrupt`, which includes truncated files and every JPEG that libjpeg warns about, except for extra bytes
            between pixels and end marker.
    """
    if not data:
        raise refused(name, "empty", "is empty (0 bytes); write it again")
    decoder = next((decoder for signatures, decoder in _DECODERS if data.startswith(signatures)), None)
    if decoder is None:
        what = f"is no JPEG, PNG, WebP, TIFF, JPEG 2000, GIF or BMP (it looks like {_kind_of(data)}); convert it to one"
        raise refused(name, "corrupt", what)
    with refusing(name):
        found = decoder(data, name, max_pixels)
    return _picture(found)


def _kind_of(data: bytes) -> str:
    """Say in words what a file that is no image looks like."""
    start = data[:512]
    for signature, kind in _OTHER_KINDS.items():
        if start.lstrip().startswith(signature):
            return kind
    is_text = all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)
    return "text" if is_text else f"binary data that starts with {start[:8].hex(' ')}"


def _picture(found: Decoded) -> Picture:
    notes = [*found.notes, *([found.footprint.note] if found.footprint and found.footprint.note else [])]
    return Picture(np.ascontiguousarray(found.pixels), "; ".join(notes) or None, found.time, found.footprint)


def _jpeg(data: bytes, name: str, max_pixels: int) -> Decoded:
    if (scans := data.count(_SCAN)) > MAX_SCANS:
        raise refused(name, "too_large", f"has {scans} scans, more than {MAX_SCANS}; write it again")
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # simplejpeg supports the common chroma subsamplings only
        space = "unusual"
    if space not in ("YCbCr", "RGB", "Gray"):  # Pillow knows that Adobe stores CMYK and YCCK inverted
        return _pillow(JpegImageFile, data, name, max_pixels)
    check_size(name, height * width, max_pixels)
    notes: list[str] = []
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")  # strict: no damage filled with grey
    except ValueError as error:
        if (extra := _BEFORE_ITS_END.search(str(error))) is None:
            raise
        pixels, notes = (
            simplejpeg.decode_jpeg(data, "RGB", strict=False),
            [f"{extra[1]} bytes after the pixels ignored"],
        )
    return Decoded(upright(pixels, _exif_of_jpeg(data)), notes)


@quiet()
def _exif_of_jpeg(data: bytes) -> Metadata:
    """Read the metadata before the pixels with Pillow, which is called only if there may be some."""
    if b"Exif\0\0" not in data and b"ns.adobe.com/xap" not in data:
        return {}
    with JpegImageFile(io.BytesIO(data)) as image:
        return image.info


def _png(data: bytes, name: str, max_pixels: int) -> Decoded:
    deep = data[24:25] == b"\x10"  # bits per sample, in IHDR; Pillow would drop the lower eight
    return _gdal("PNG", data, name, max_pixels) if deep else _pillow(PngImageFile, data, name, max_pixels)


@quiet()
def _pillow(plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes, name: str, max_pixels: int) -> Decoded:
    """Decode with one Pillow plugin; `Image.open` would try others too, and has a pixel limit of its own."""
    with plugin(io.BytesIO(data)) as image:
        check_size(name, image.height * image.width, max_pixels)
        notes = ["first frame"] if getattr(image, "is_animated", False) else []
        image.load()
        pixels, more = rgb_of(image, name)
        return Decoded(upright(pixels, image.info), notes + more)


@quiet()
def _gdal(driver: str, data: bytes, name: str, max_pixels: int) -> Decoded:
    with rasterio.Env(**GDAL), rasterio.MemoryFile(data, filename="image") as m, m.open(driver=driver) as dataset:
        check_size(name, size := dataset.height * dataset.width, max_pixels)
        bands = colour_bands(dataset, name)
        check_blocks(dataset, bands, name, max_pixels, size)
        lab = dataset.photometric == PhotometricInterp.cielab
        pixels, notes = _lab(dataset, data, name) if lab else rgb(dataset, bands, name)
        notes += [f"page 1 of {len(dataset.subdatasets)}"] if dataset.subdatasets else []
        if driver == "GTiff" and placement_of(dataset) is None:  # rotating would invalidate a georeference
            pixels = turned(pixels, orientation_in(io.BytesIO(data)))
        return Decoded(pixels, notes, time_of(dataset), footprint_of(dataset))


def _lab(dataset: Any, data: bytes, name: str) -> Noted:
    """Convert CIELAB by LittleCMS; libtiff's conversion, which GDAL would use, is off by up to 49 of 255."""
    if dataset.dtypes[0] != "uint8":
        raise refused(name, "unsupported", f"is CIELAB of {dataset.dtypes[0]}; convert it to RGB")
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    with TiffImageFile(io.BytesIO(data)) as image:
        return np.array(ImageCms.buildTransform(*profiles, "LAB", "RGB").apply(image)), ["CIELAB converted to sRGB"]


_DECODERS: Final[tuple[tuple[tuple[bytes, ...], Decoder], ...]] = (
    ((b"\xff\xd8\xff",), _jpeg),
    ((b"\x89PNG\r\n\x1a\n",), _png),
    (TIFF, partial(_gdal, "GTiff")),
    (JPEG_2000, partial(_gdal, "JP2OpenJPEG")),
    ((b"RIFF",), partial(_pillow, WebPImageFile)),
    ((b"GIF87a", b"GIF89a"), partial(_pillow, GifImageFile)),
    ((b"BM",), partial(_pillow, BmpImageFile)),
)
