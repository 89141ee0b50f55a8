"""From the bytes of an image file, in whatever format and sample type, to 8-bit RGB.

Black are nodata and NaN where samples are stretched, and what an alpha band or mask hides. Alpha is coverage here (the
ragged edge of an orthophoto), not paint: what it hides in part keeps its colour; there is no background to blend with.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
import simplejpeg
from PIL import Image, ImageCms, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from rasterio._err import CPLE_OutOfMemoryError  # where memory ends inside of GDAL
from rasterio.enums import ColorInterp, Interleaving, MaskFlags, PhotometricInterp
from rasterio.errors import NotGeoreferencedWarning

from rsir_core.archive import read_file
from rsir_core.errors import FailureKind, ImageError
from rsir_core.footprint import Footprint, footprint_of, time_of
from rsir_core.orientation import upright

Pixels = npt.NDArray[np.uint8]  # H×W×3, RGB
Noted = tuple[Pixels, list[str]]  # with notes


class Decoded(NamedTuple):
    """What a decoder makes of a file; see `Picture`."""

    pixels: Pixels
    notes: list[str]
    time: datetime | None = None
    footprint: Footprint | None = None


Decoder = Callable[[bytes, str, int], Decoded]  # of data, name, max_pixels

MAX_PIXELS: Final = 100_000_000
_PER_PIXEL: Final = 16  # bytes that a file may have, and samples that its decoder may have to touch, per allowed pixel

# All that is read is the bytes given: no sidecar, no neighbour, no network; one thread, since workers are the
# parallelism; and what libjpeg only warns of (data missing inside a TIFF's tile) is an error.
_GDAL: Final = {
    "CPL_DEBUG": "OFF",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_NUM_THREADS": "1",
    "GDAL_PAM_ENABLED": "NO",
    "PROJ_NETWORK": "OFF",
}
logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # errors arrive as exceptions; warnings are about metadata


@dataclass(frozen=True)
class Picture:
    """A decoded image."""

    pixels: Pixels  # H×W×3 uint8, RGB, upright; C-contiguous and writable
    notes: str | None  # what reading had to decide (stretch, first page, bands, transparent pixels); None: nothing
    time: datetime | None = None  # of acquisition, UTC; None: the file does not say
    footprint: Footprint | None = None  # None: the file is not georeferenced


def read_picture(uri: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read and decode a file.

    Raises:
        ImageError: as `read_file` (of more than 16 bytes per allowed pixel: `too_large`) and `decode`.
    """
    return decode(read_file(uri, _PER_PIXEL * max_pixels), uri, max_pixels)


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a file's bytes by what they are, not by what the file is called.

    JPEG (any colour space), PNG, WebP, GIF, BMP; TIFF, GeoTIFF and JPEG 2000 of any real sample type. 8-bit values
    are kept; others are stretched from percentiles 2 and 98 of the valid samples, one range for the three bands, so
    that hues stay. Bands are those marked red, green and blue, else the first three, else the first as grey. EXIF
    orientation is applied (in a TIFF, if it is not georeferenced). Of several pages or frames the first.

    Raises:
        ImageError: stage `decode`; kind `empty`, `too_large` (found before allocating), `unsupported`, `no_data`, or
            `corrupt`: also a file that ends before its pixels do, and a JPEG that libjpeg has a complaint about.
    """
    if not data:
        raise _refused(name, "empty", "is empty (0 bytes); write it again")
    decoder = next((decoder for signatures, decoder in _DECODERS if data.startswith(signatures)), None)
    if decoder is None:
        what = f"is no JPEG, PNG, WebP, TIFF, JPEG 2000, GIF or BMP (it starts with {data[:8]!r}); convert it to one"
        raise _refused(name, "corrupt", what)
    try:
        found = decoder(data, name, max_pixels)
    except ImageError:
        raise
    except MemoryError as error:
        raise _refused(name, "memory", "does not fit into memory; lower the pixel limit") from error
    except Image.DecompressionBombError as error:  # Pillow's GIF and WebP readers look for themselves, as they open
        raise _refused(name, "too_large", f"is refused: {error}") from error
    except Exception as error:  # decoders of broken files raise nearly every built-in error, and their own
        why = error.__cause__ or error  # rasterio says "read failed", GDAL's reason is the cause
        if "cannot allocate" in str(why) or isinstance(why, CPLE_OutOfMemoryError):
            raise _refused(name, "memory", f"does not fit into memory ({why}); lower the pixel limit") from error
        raise _refused(name, "corrupt", f"cannot be decoded: {type(why).__name__}: {why}") from error
    return Picture(np.ascontiguousarray(found.pixels), "; ".join(found.notes) or None, found.time, found.footprint)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of Pillow and rasterio on what is decided here: broken metadata, no georeference."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _jpeg(data: bytes, name: str, max_pixels: int) -> Decoded:
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # this interface of libjpeg-turbo knows the usual subsamplings only
        space = "unusual"
    if space not in ("YCbCr", "RGB", "Gray"):  # Pillow knows which CMYK and YCCK are stored inverted, as by Adobe
        return _pillow(JpegImageFile, data, name, max_pixels)
    _check_size(name, height * width, max_pixels)
    pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")  # strict: libjpeg's warnings are errors, no grey filling
    exif = data.find(b"Exif\0\0", 0, 65_536)
    return Decoded(pixels if exif < 0 else upright(pixels, data[exif : exif + 65_536]), [])


def _png(data: bytes, name: str, max_pixels: int) -> Decoded:
    deep = data[24:25] == b"\x10"  # bits per sample, in IHDR; Pillow would drop the lower eight
    return _gdal("PNG", data, name, max_pixels) if deep else _pillow(PngImageFile, data, name, max_pixels)


@_quiet()
def _pillow(plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes, name: str, max_pixels: int) -> Decoded:
    """Read with one plugin: `Image.open` would try others, and has a pixel limit of its own."""
    with plugin(io.BytesIO(data)) as image:
        _check_size(name, image.height * image.width, max_pixels)
        notes = ["first frame"] if getattr(image, "is_animated", False) else []
        image.load()
        if image.has_transparency_data:
            rgba = np.array(image.convert("RGBA"))
            pixels = rgba[..., :3]
            notes += _blacken(pixels, rgba[..., 3] > 0, name)
        else:
            pixels = np.array(image.convert("RGB"))
        return Decoded(upright(pixels, image.info.get("exif", b"")), notes)


@_quiet()
def _gdal(driver: str, data: bytes, name: str, max_pixels: int) -> Decoded:
    with rasterio.Env(**_GDAL), rasterio.MemoryFile(data, filename="image") as m, m.open(driver=driver) as dataset:
        _check_size(name, size := dataset.height * dataset.width, max_pixels)
        bands = _colour_bands(dataset, name)
        read = len(bands) if dataset.interleaving == Interleaving.band else dataset.count
        touched = max(size, *(height * width for height, width in dataset.block_shapes)) * read
        _check_size(name, touched, _PER_PIXEL * max_pixels, "samples")
        lab = dataset.photometric == PhotometricInterp.cielab
        pixels, notes = _lab(dataset, data, name) if lab else _rgb(dataset, bands, name)
        notes += [f"page 1 of {len(dataset.subdatasets)}"] if dataset.subdatasets else []
        if driver == "GTiff" and dataset.transform.is_identity:  # pixels turn, a georeference would not
            pixels = upright(pixels, data)
        return Decoded(pixels, notes, time_of(dataset), footprint_of(dataset))


def _colour_bands(dataset: Any, name: str) -> list[int]:
    """Numbers (from 1) of the three bands to see, or of one."""
    if dataset.count > 4096:  # no imagery has so many, and to ask for each one's properties takes seconds
        raise _refused(name, "unsupported", f"has {dataset.count} bands; export three of them")
    kinds = list(dataset.colorinterp)
    if any("complex" in sample for sample in dataset.dtypes):
        raise _refused(name, "unsupported", f"has complex samples ({dataset.dtypes[0]}); export amplitudes")
    if ColorInterp.cyan in kinds:
        raise _refused(name, "unsupported", f"is CMYK of {dataset.dtypes[0]}; convert it to RGB")
    rgb = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(kind in kinds for kind in rgb):
        return [kinds.index(kind) + 1 for kind in rgb]
    colours = [number for number, kind in enumerate(kinds, 1) if kind != ColorInterp.alpha]
    if not colours:
        raise _refused(name, "unsupported", "has no band but alpha; there is nothing to see")
    return colours[:3] if len(colours) >= 3 else colours[:1]


def _rgb(dataset: Any, bands: list[int], name: str) -> Noted:
    samples = dataset.read(bands)  # (1 or 3)×H×W
    flags = {flag for band in bands for flag in dataset.mask_flag_enums[band - 1]}
    valid = np.isfinite(samples) if samples.dtype.kind == "f" else np.broadcast_to(np.True_, samples.shape)
    if MaskFlags.all_valid not in flags:
        valid = valid & (dataset.read_masks(bands) > 0)
    if not valid.any():
        raise _refused(name, "no_data", "has no valid pixel, only nodata; leave it out")
    colours = sum(kind != ColorInterp.alpha for kind in dataset.colorinterp)
    notes = [f"bands {', '.join(map(str, bands))} of {dataset.count}"] if colours != len(bands) else []
    if dataset.colorinterp[bands[0] - 1] == ColorInterp.palette:
        palette = np.zeros((65_536, 3), np.uint8)  # indices without a colour are black
        for index, colour in dataset.colormap(bands[0]).items():
            palette[index] = colour[:3]
        pixels = np.empty((*samples.shape[1:], 3), np.uint8)
        for row, out in zip(samples[0], pixels, strict=True):  # at once takes 8 bytes per index, and four times as long
            palette.take(row, axis=0, out=out, mode="clip")
    else:
        samples, stretched = _to_8_bit(dataset, bands[0], samples, valid)
        notes += stretched
        pixels = np.ascontiguousarray(np.broadcast_to(samples, (3, *samples.shape[1:])).transpose(1, 2, 0))
    if flags & {MaskFlags.alpha, MaskFlags.per_dataset}:  # not for nodata: in 8 bits its value may be a colour as well
        notes += _blacken(pixels, np.any(valid, axis=0), name)
    return pixels, notes


def _to_8_bit(dataset: Any, band: int, samples: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Noted:
    notes: list[str] = []
    top = 2 ** int(dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", 8)) - 1
    if samples.dtype != np.uint8:
        samples, notes = _stretch(samples, valid)
    elif top < 255:
        samples = (np.arange(256).clip(max=top) * 255 // top).astype(np.uint8)[samples]
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        samples = np.where(valid, 255 - samples, samples)
    return samples, notes


@np.errstate(invalid="ignore")  # NaN, where nothing is valid
def _stretch(samples: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Noted:
    """Samples (bands×H×W) to 8 bits, from percentiles 2 and 98 of the valid ones; the others become 0."""
    step = 1 + samples.size // 1_000_000  # as many are enough for percentiles
    some = samples.reshape(-1)[::step][valid.reshape(-1)[::step]]
    if not some.size:  # so few are valid that none was met
        some = samples[valid]
    low, high = (float(p) for p in np.percentile(some.astype(np.float64), (2, 98)))
    if low == high:  # nearly all alike: the few that differ are what there is to see
        low, high = float(some.min()), float(some.max())
    if low == high:  # all alike: white, unless it is 0
        low, high = min(low, 0.0), max(high, 0.0)
    pixels = np.zeros(samples.shape, np.uint8)
    if low < high:
        for band, seen, out in zip(samples, valid, pixels, strict=True):  # one at a time: these are float64
            np.rint(np.interp(band, (low, high), (0, 255)), out=out, where=seen, casting="unsafe")
    return pixels, [f"{samples.dtype} {low:g} to {high:g} (percentiles 2 and 98) stretched to 8 bits"]


def _lab(dataset: Any, data: bytes, name: str) -> Noted:
    """CIELAB by LittleCMS: libtiff's conversion, which GDAL would use, is off by up to 49 of 255."""
    if dataset.dtypes[0] != "uint8":
        raise _refused(name, "unsupported", f"is CIELAB of {dataset.dtypes[0]}; convert it to RGB")
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    with TiffImageFile(io.BytesIO(data)) as image:
        return np.array(ImageCms.buildTransform(*profiles, "LAB", "RGB").apply(image)), ["CIELAB converted to sRGB"]


def _blacken(pixels: Pixels, seen: npt.NDArray[np.bool_], name: str) -> list[str]:
    """Make the pixels that are not seen black, in place; a note if there are any."""
    share = 1 - np.count_nonzero(seen) / seen.size
    if share == 1:
        raise _refused(name, "no_data", "is transparent everywhere; leave it out")
    pixels[~seen] = 0
    return [f"{share:.1%} transparent, made black"] if share else []


def _check_size(name: str, size: int, limit: int, unit: str = "pixels") -> None:
    if size > limit:
        raise _refused(name, "too_large", f"has {size:,} {unit}, the limit is {limit:,}; raise it or leave it out")


def _refused(name: str, kind: FailureKind, what: str) -> ImageError:
    return ImageError(f"{name} {what}", "decode", kind)


_DECODERS: Final[tuple[tuple[tuple[bytes, ...], Decoder], ...]] = (
    ((b"\xff\xd8\xff",), _jpeg),
    ((b"\x89PNG\r\n\x1a\n",), _png),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), partial(_gdal, "GTiff")),
    ((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), partial(_gdal, "JP2OpenJPEG")),
    ((b"RIFF",), partial(_pillow, WebPImageFile)),
    ((b"GIF87a", b"GIF89a"), partial(_pillow, GifImageFile)),
    ((b"BM",), partial(_pillow, BmpImageFile)),
)
