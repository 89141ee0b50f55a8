"""From an open raster's samples, of whatever type and number of bands, to 8-bit RGB: all of it, or a window."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from rasterio._err import CPLE_OutOfMemoryError
from rasterio.enums import ColorInterp, Interleaving, MaskFlags, Resampling
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning
from rasterio.windows import Window

from rsir_core.arrays import Mask, Pixels
from rsir_core.errors import FailureKind, ImageError
from rsir_core.geo.footprint import Footprint

Noted = tuple[Pixels, list[str]]  # with notes
Range = tuple[float, float]  # of samples: what becomes 0 and what becomes 255

MAX_PIXELS: Final = 100_000_000
PER_PIXEL: Final = 16  # bytes that a file may have, and its decoder may have to touch, per allowed pixel

# All that is read is the file given: no sidecar, no neighbour, no network; one thread, since workers are the
# parallelism; and what libjpeg only warns of (data missing inside a TIFF's tile) is an error.
GDAL: Final = {
    "CPL_DEBUG": "OFF",
    "GDAL_CACHEMAX": 128,  # MiB of decoded blocks in a process, not a share of the node's memory in each
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_NUM_THREADS": "1",
    "GDAL_PAM_ENABLED": "NO",
    "PROJ_NETWORK": "OFF",
}
logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # errors arrive as exceptions; warnings are about metadata


class Decoded(NamedTuple):
    """Hold what a decoder makes of a file; see `decode.Picture`."""

    pixels: Pixels
    notes: list[str]
    time: datetime | None = None
    footprint: Footprint | None = None


class RasterRead(NamedTuple):
    """Say what of a raster is read, and how.

    Attributes:
        window: in pixels of the raster; None: all of it.
        shape: height and width to read it at, from an overview where one is fine enough; None: those of the window.
        stretch: the range of samples that are not 8-bit, as all windows of a raster must have; None: that of the view.
        is_mean: at a smaller shape samples are means of those around; else, some of those that there are.
    """

    window: Window | None = None
    shape: tuple[int, int] | None = None
    stretch: Range | None = None
    is_mean: bool = True


WHOLE: Final = RasterRead()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings of Pillow and rasterio on what is decided here: broken metadata, no georeference."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)  # an alpha band counts beside it, see `alpha_bands`
        yield


# What GDAL, libtiff and libjpeg-turbo say of files that are whole and that this build of theirs does not read.
_NOT_BUILT_IN: Final = re.compile(
    r"missing codec|data precision \d+|JPEG process: SOF|[Aa]rithmetic (entropy )?coding|compression scheme \S+ is not|"
    r"not compiled in|codec .* not (available|supported)|Lossless JPEG"
)


def refusal(name: str, error: BaseException, smaller: str) -> ImageError:
    """Explain why GDAL or a decoder failed: memory, a codec that it has not, or a damaged file.

    Args:
        name: of the file.
        error: as it was raised; rasterio says "read failed", and GDAL's reason is the cause.
        smaller: what to do where memory ended.
    """
    why = error.__cause__ or error
    if "cannot allocate" in str(why) or isinstance(why, CPLE_OutOfMemoryError):
        return refused(name, "memory", f"does not fit into memory ({why}); {smaller}")
    if _NOT_BUILT_IN.search(str(why)):
        return refused(name, "unsupported", f"needs a decoder that is not built in ({why}); convert it")
    return refused(name, "corrupt", f"cannot be decoded: {type(why).__name__}: {why}")


def check_blocks(dataset: Any, bands: list[int], name: str, max_pixels: int, least: int = 0) -> None:
    """Refuse a raster of which reading any pixel decodes more than may be held.

    Args:
        dataset: open.
        bands: to read.
        name: for the message.
        max_pixels: allowed.
        least: pixels that are read in any case.

    Raises:
        ImageError: `too_large`.
    """
    read = len(bands) + len(alpha_bands(dataset, bands)) if dataset.interleaving == Interleaving.band else dataset.count
    touched = max(least, *(height * width for height, width in dataset.block_shapes)) * read
    size = touched * np.dtype(dataset.dtypes[0]).itemsize
    check_size(name, size, PER_PIXEL * max_pixels, "bytes of samples")


def colour_bands(dataset: Any, name: str) -> list[int]:
    """Choose the numbers (from 1) of the three bands to see, or of one."""
    if dataset.count > 4096:  # no imagery has so many, and to ask for each one's properties takes seconds
        raise refused(name, "unsupported", f"has {dataset.count} bands; export three of them")
    kinds = list(dataset.colorinterp)
    if any("complex" in sample for sample in dataset.dtypes):
        raise refused(name, "unsupported", f"has complex samples ({dataset.dtypes[0]}); export amplitudes")
    if ColorInterp.cyan in kinds:
        raise refused(name, "unsupported", f"is CMYK of {dataset.dtypes[0]}; convert it to RGB")
    rgb = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(kind in kinds for kind in rgb):
        return [kinds.index(kind) + 1 for kind in rgb]
    colours = [number for number, kind in enumerate(kinds, 1) if kind != ColorInterp.alpha]
    if not colours:
        raise refused(name, "unsupported", "has no band but alpha; there is nothing to see")
    return colours[:3] if len(colours) >= 3 else colours[:1]


def named_bands(dataset: Any, wanted: str, name: str) -> list[int]:
    """Find the numbers (from 1) of the three bands, or the one, that are asked for by number, description or colour."""
    known = {kind.name: number for number, kind in reversed(list(enumerate(dataset.colorinterp, 1)))}
    known |= {text.lower(): number for number, text in enumerate(dataset.descriptions, 1) if text}
    known |= {str(number): number for number in range(1, dataset.count + 1)}
    try:
        return [known[band.strip().lower()] for band in wanted.split(",")]
    except KeyError as error:
        what = f"has no band {error}; there are {', '.join(known)}; choose others with --bands"
        raise refused(name, "unsupported", what) from error


def mask_flags(dataset: Any, bands: list[int]) -> set[MaskFlags]:
    """Find what can hide pixels of the bands: an alpha band, a mask, a nodata value."""
    flags = _gdal_flags(dataset, bands)
    return (flags | {MaskFlags.alpha}) - {MaskFlags.all_valid} if alpha_bands(dataset, bands) else flags


def alpha_bands(dataset: Any, bands: list[int]) -> list[int]:
    """Find the numbers (from 1) of the bands that hide pixels of the others.

    GDAL sees an alpha band only where it is the last of two or four, of unsigned integers, and where there is no nodata
    value. Pictures of drones have near infrared before it.
    """
    kinds = enumerate(dataset.colorinterp, 1)
    return [number for number, kind in kinds if kind == ColorInterp.alpha and number not in bands]


def _gdal_flags(dataset: Any, bands: list[int]) -> set[MaskFlags]:
    return {flag for band in bands for flag in dataset.mask_flag_enums[band - 1]}


def read_samples(dataset: Any, bands: list[int], view: RasterRead = WHOLE) -> tuple[npt.NDArray[Any], Mask]:
    """Read samples (1 or 3)×H×W, and which of them are valid."""
    shape = None if view.shape is None else (len(bands), *view.shape)
    exact = not view.is_mean or dataset.colorinterp[bands[0] - 1] == ColorInterp.palette  # no mean of indices
    resampling = Resampling.nearest if exact else Resampling.average
    samples = dataset.read(bands, window=view.window, out_shape=shape, resampling=resampling)
    valid = np.isfinite(samples) if samples.dtype.kind == "f" else np.broadcast_to(np.True_, samples.shape)
    flags = _gdal_flags(dataset, bands)
    if MaskFlags.all_valid not in flags:
        valid = valid & (dataset.read_masks(bands, window=view.window, out_shape=shape) > 0)
    if MaskFlags.alpha not in flags and (alpha := alpha_bands(dataset, bands)):
        shape = shape and (len(alpha), *shape[1:])
        seen = dataset.read(alpha, window=view.window, out_shape=shape, resampling=resampling) > 0  # which no NaN is
        valid = valid & seen.all(axis=0)
    return samples, valid


def rgb(dataset: Any, bands: list[int], name: str, view: RasterRead = WHOLE) -> Noted:
    """Read those bands as 8-bit RGB.

    Raises:
        ImageError: `no_data`, no pixel is valid.
    """
    samples, valid = read_samples(dataset, bands, view)
    if not valid.any():
        raise refused(name, "no_data", "has no valid pixel, only nodata; leave it out, or choose one with data")
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
        samples, stretched = _to_8_bit(dataset, bands[0], samples, valid, view.stretch)
        notes += stretched
        pixels = np.ascontiguousarray(np.broadcast_to(samples, (3, *samples.shape[1:])).transpose(1, 2, 0))
    if mask_flags(dataset, bands) & {
        MaskFlags.alpha,
        MaskFlags.per_dataset,
    }:  # not for nodata: in 8 bits its value may be a colour as well
        notes += blacken(pixels, np.any(valid, axis=0), name)
    return pixels, notes


def _to_8_bit(dataset: Any, band: int, samples: npt.NDArray[Any], valid: Mask, stretch: Range | None) -> Noted:
    notes: list[str] = []
    top = 2 ** int(dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", 8)) - 1
    if samples.dtype != np.uint8:
        low, high = stretch or range_of(samples, valid)
        of = "" if stretch is None else " of the scene"
        notes = [f"{samples.dtype} {low:g} to {high:g} (percentiles 2 and 98{of}) stretched to 8 bits"]
        samples = _stretched(samples, valid, (low, high))
    elif top < 255:
        samples = (np.arange(256).clip(max=top) * 255 // top).astype(np.uint8)[samples]
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        samples = np.where(valid, 255 - samples, samples)
    return samples, notes


def range_of(samples: npt.NDArray[Any], valid: Mask) -> Range:
    """Compute percentiles 2 and 98 of the valid samples (bands×H×W), of which there is at least one."""
    step = 1 + samples.size // 1_000_000  # as many are enough for percentiles
    some = samples.reshape(-1)[::step][valid.reshape(-1)[::step]]
    if not some.size:  # so few are valid that none was met
        some = samples[valid]
    low, high = (float(p) for p in np.percentile(some.astype(np.float64), (2, 98)))
    if low == high:  # nearly all alike: the few that differ are what there is to see
        low, high = float(some.min()), float(some.max())
    if low == high:  # all alike: white, unless it is 0
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high


@np.errstate(invalid="ignore")  # NaN, where nothing is valid
def _stretched(samples: npt.NDArray[Any], valid: Mask, ends: Range) -> Pixels:
    """Stretch samples (bands×H×W) to 8 bits; those that are not valid become 0."""
    pixels = np.zeros(samples.shape, np.uint8)
    if ends[0] < ends[1]:
        for band, seen, out in zip(samples, valid, pixels, strict=True):  # one at a time: these are float64
            np.rint(np.interp(band, ends, (0, 255)), out=out, where=seen, casting="unsafe")
    return pixels


def blacken(pixels: Pixels, seen: Mask, name: str) -> list[str]:
    """Make the pixels that are not seen black, in place; a note if there are any."""
    share = 1 - np.count_nonzero(seen) / seen.size
    if share == 1:
        raise refused(name, "no_data", "is transparent everywhere; leave it out")
    pixels[~seen] = 0
    return [f"{share:.1%} transparent, made black"] if share else []


def check_size(name: str, size: int, limit: int, unit: str = "pixels") -> None:
    """Check that a size is within its limit; else raise ImageError `too_large`."""
    if size > limit:
        raise refused(name, "too_large", f"has {size:,} {unit}, the limit is {limit:,}; raise it or leave it out")


def refused(name: str, kind: FailureKind, what: str) -> ImageError:
    """Make the error that says why a file is no image."""
    return ImageError(f"{name} {what}", "decode", kind)
