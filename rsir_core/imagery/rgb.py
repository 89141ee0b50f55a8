"""Convert an open raster, or a window of it, to 8-bit RGB from any sample type and number of bands."""

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
Range = tuple[float, float]  # the sample values that become 0 and 255

MAX_PIXELS: Final = 100_000_000
PER_PIXEL: Final = 16  # limit of a file's size, and of what its decoder touches, in bytes per allowed pixel

# GDAL reads only the given file: no sidecar, no neighbour, no network. It uses one thread, because the workers are the
# parallelism. What libjpeg only warns about (data missing inside a TIFF's tile) is an error.
GDAL: Final = {
    "CPL_DEBUG": "OFF",
    "GDAL_CACHEMAX": 128,  # MiB of decoded blocks per process; the default is a share of the node's memory
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_NUM_THREADS": "1",
    "GDAL_PAM_ENABLED": "NO",
    "PROJ_NETWORK": "OFF",
}
logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # errors are raised; warnings are about metadata only


class Decoded(NamedTuple):
    """Hold a decoder's result; see `decode.Picture`."""

    pixels: Pixels
    notes: list[str]
    time: datetime | None = None
    footprint: Footprint | None = None


class RasterRead(NamedTuple):
    """Select which part of a raster to read, and how.

    Attributes:
        window: in pixels of the raster; None: the whole raster.
        shape: height and width to resample to, from an overview if one is fine enough; None: the window's own.
        stretch: sample range for samples that are not 8-bit, the same for all windows of a raster; None: computed
            from the window itself.
        is_mean: whether to average when downsampling; else the nearest sample is taken.
    """

    window: Window | None = None
    shape: tuple[int, int] | None = None
    stretch: Range | None = None
    is_mean: bool = True


WHOLE: Final = RasterRead()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings of Pillow and rasterio about cases handled here: broken metadata, no georeference."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.filterwarnings("ignore", "Use `@`", PendingDeprecationWarning)  # rasterio's WarpedVRT, of affine 3
        warnings.simplefilter("ignore", NodataShadowWarning)  # both nodata and alpha are honoured, see `alpha_bands`
        yield


# Messages of GDAL, libtiff and libjpeg-turbo for intact files that their builds cannot decode.
_NOT_BUILT_IN: Final = re.compile(
    r"missing codec|data precision \d+|JPEG process: SOF|[Aa]rithmetic (entropy )?coding|compression scheme \S+ is not|"
    r"not compiled in|codec .* not (available|supported)|Lossless JPEG"
)


def refusal(name: str, error: BaseException, smaller: str) -> ImageError:
    """Explain why GDAL or a decoder failed: out of memory, a missing codec, or a damaged file.

    Args:
        name: of the file.
        error: as it was raised; rasterio says "read failed", with GDAL's reason as its cause.
        smaller: the remedy if memory ran out.
    """
    why = error.__cause__ or error
    if "cannot allocate" in str(why) or isinstance(why, CPLE_OutOfMemoryError):
        return refused(name, "memory", f"does not fit into memory ({why}); {smaller}")
    if _NOT_BUILT_IN.search(str(why)):
        return refused(name, "unsupported", f"needs a decoder that is not built in ({why}); convert it")
    return refused(name, "corrupt", f"cannot be decoded: {type(why).__name__}: {why}")


def check_blocks(dataset: Any, bands: list[int], name: str, max_pixels: int, least: int = 0) -> None:
    """Refuse a raster whose blocks are so large that reading one pixel decodes more than is allowed.

    Args:
        dataset: open rasterio dataset.
        bands: bands to read.
        name: of the raster, for the message.
        max_pixels: limit of pixels that may be held.
        least: pixels that are read in any case.

    Raises:
        ImageError: `too_large`.
    """
    read = len(bands) + len(alpha_bands(dataset, bands)) if dataset.interleaving == Interleaving.band else dataset.count
    touched = max(least, *(height * width for height, width in dataset.block_shapes)) * read
    size = touched * np.dtype(dataset.dtypes[0]).itemsize
    check_size(name, size, PER_PIXEL * max_pixels, "bytes of samples")


def colour_bands(dataset: Any, name: str) -> list[int]:
    """Choose the numbers (from 1) of the three bands to show as RGB, or of the one to show as grey."""
    if dataset.count > 4096:  # no imagery has so many, and reading the properties of each takes seconds
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
    """Look up the numbers (from 1) of three bands, or one, given by number, description or colour."""
    known = {kind.name: number for number, kind in reversed(list(enumerate(dataset.colorinterp, 1)))}
    known |= {text.lower(): number for number, text in enumerate(dataset.descriptions, 1) if text}
    known |= {str(number): number for number in range(1, dataset.count + 1)}
    try:
        return [known[band.strip().lower()] for band in wanted.split(",")]
    except KeyError as error:
        what = f"has no band {error}; there are {', '.join(known)}; choose others with --bands"
        raise refused(name, "unsupported", what) from error


def mask_flags(dataset: Any, bands: list[int]) -> set[MaskFlags]:
    """Find what can mask pixels of the bands: an alpha band, a mask, a nodata value."""
    flags = _gdal_flags(dataset, bands)
    return (flags | {MaskFlags.alpha}) - {MaskFlags.all_valid} if alpha_bands(dataset, bands) else flags


def alpha_bands(dataset: Any, bands: list[int]) -> list[int]:
    """Find the numbers (from 1) of alpha bands.

    GDAL recognises an alpha band only as the last of two or four, of unsigned integers, and without a nodata value.
    Drone orthophotos have a near-infrared band before it.
    """
    kinds = enumerate(dataset.colorinterp, 1)
    return [number for number, kind in kinds if kind == ColorInterp.alpha and number not in bands]


def _gdal_flags(dataset: Any, bands: list[int]) -> set[MaskFlags]:
    return {flag for band in bands for flag in dataset.mask_flag_enums[band - 1]}


def has_silent_nodata(dataset: Any, bands: list[int]) -> bool:
    """Tell whether pixels that are 0 in all bands count as nodata, as nothing else says which do.

    Landsat and Sentinel-2 have 0 around a scene, and often do not declare it.
    """
    is_silent = _gdal_flags(dataset, bands) == {MaskFlags.all_valid} and not alpha_bands(dataset, bands)
    return is_silent and all(dataset.dtypes[band - 1] == "uint16" for band in bands)


def read_samples(dataset: Any, bands: list[int], view: RasterRead = WHOLE) -> tuple[npt.NDArray[Any], Mask]:
    """Read samples, (1 or 3)×H×W, and their validity, a bool array that broadcasts to them."""
    shape = None if view.shape is None else (len(bands), *view.shape)
    exact = not view.is_mean or dataset.colorinterp[bands[0] - 1] == ColorInterp.palette  # palette indices have no mean
    resampling = Resampling.nearest if exact else Resampling.average
    samples = dataset.read(bands, window=view.window, out_shape=shape, resampling=resampling)
    valid = np.isfinite(samples) if samples.dtype.kind == "f" else np.broadcast_to(np.True_, samples.shape)
    flags = _gdal_flags(dataset, bands)
    if flags != {MaskFlags.all_valid}:
        valid = valid & (dataset.read_masks(bands, window=view.window, out_shape=shape) > 0)
    if MaskFlags.alpha not in flags and (alpha := alpha_bands(dataset, bands)):
        shape = shape and (len(alpha), *shape[1:])
        visible = dataset.read(alpha, window=view.window, out_shape=shape, resampling=resampling) > 0  # false for NaN
        valid = valid & visible.all(axis=0)
    elif has_silent_nodata(dataset, bands):
        shown = samples.any(axis=0)
        valid = np.broadcast_to(shown, samples.shape) if shown.any() else valid
    return samples, valid


def rgb(dataset: Any, bands: list[int], name: str, view: RasterRead = WHOLE) -> Noted:
    """Read bands as 8-bit RGB, with notes on what had to be decided.

    Raises:
        ImageError: `no_data` if no pixel is valid.
    """
    pixels, notes, _ = rgb_and_valid(dataset, bands, name, view)
    return pixels, notes


def rgb_and_valid(
    dataset: Any, bands: list[int], name: str, view: RasterRead = WHOLE
) -> tuple[Pixels, list[str], Mask]:
    """Read bands like `rgb`, and which samples are valid: bool, broadcasts to bands×H×W."""
    samples, valid = read_samples(dataset, bands, view)
    if not valid.any():
        raise refused(name, "no_data", "has no valid pixel, only nodata; leave it out, or choose one with data")
    colours = sum(kind != ColorInterp.alpha for kind in dataset.colorinterp)
    notes = [f"bands {', '.join(map(str, bands))} of {dataset.count}"] if colours != len(bands) else []
    if dataset.colorinterp[bands[0] - 1] == ColorInterp.palette:
        palette = np.zeros((65_536, 3), np.uint8)  # indices without a colour become black
        for index, colour in dataset.colormap(bands[0]).items():
            palette[index] = colour[:3]
        pixels = np.empty((*samples.shape[1:], 3), np.uint8)
        for row, out in zip(samples[0], pixels, strict=True):  # all at once: 4 times slower
            palette.take(row, axis=0, out=out, mode="clip")
    else:
        samples, stretched = _to_8_bit(dataset, bands[0], samples, valid, view.stretch)
        notes += stretched
        pixels = np.ascontiguousarray(np.broadcast_to(samples, (3, *samples.shape[1:])).transpose(1, 2, 0))
    if mask_flags(dataset, bands) & {
        MaskFlags.alpha,
        MaskFlags.per_dataset,
    }:  # not nodata: in 8-bit rasters its value may be a real colour too
        notes += blacken(pixels, np.any(valid, axis=0), name)
    return pixels, notes, valid


def _to_8_bit(dataset: Any, band: int, samples: npt.NDArray[Any], valid: Mask, stretch: Range | None) -> Noted:
    notes: list[str] = []
    top = 2 ** int(dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", 8)) - 1
    if samples.dtype != np.uint8:
        low, high = stretch or range_of(samples, valid)
        whence = "percentiles 2 and 98" if stretch is None else "range of the scene"
        notes = [f"{samples.dtype} {low:g} to {high:g} ({whence}) stretched to 8 bits"]
        samples = _stretched(samples, valid, (low, high))
    elif top < 255:
        samples = (np.arange(256).clip(max=top) * 255 // top).astype(np.uint8)[samples]
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        samples = np.where(valid, 255 - samples, samples)
    return samples, notes


def range_of(samples: npt.NDArray[Any], valid: Mask) -> Range:
    """Compute percentiles 2 and 98 of the valid samples (bands×H×W); at least one must be valid."""
    step = 1 + samples.size // 1_000_000  # a million suffice for percentiles
    some = samples.reshape(-1)[::step][valid.reshape(-1)[::step]]
    if not some.size:  # so few are valid that the sample has none
        some = samples[valid]
    low, high = (float(p) for p in np.percentile(some.astype(np.float64), (2, 98)))
    if low == high:  # nearly constant: show the few samples that differ
        low, high = float(some.min()), float(some.max())
    if low == high:  # constant: white, or black if 0
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high


@np.errstate(invalid="ignore")  # invalid samples may be NaN
def _stretched(samples: npt.NDArray[Any], valid: Mask, ends: Range) -> Pixels:
    """Stretch samples (bands×H×W) to 8 bits; invalid ones become 0."""
    pixels = np.zeros(samples.shape, np.uint8)
    if ends[0] < ends[1]:
        for band, is_valid, out in zip(samples, valid, pixels, strict=True):  # np.interp returns float64
            np.rint(np.interp(band, ends, (0, 255)), out=out, where=is_valid, casting="unsafe")
    return pixels


def blacken(pixels: Pixels, visible: Mask, name: str) -> list[str]:
    """Blacken the pixels that are not visible, in place; returns a note if there are any."""
    share = 1 - np.count_nonzero(visible) / visible.size
    if share == 1:
        raise refused(name, "no_data", "is transparent everywhere; leave it out")
    pixels[~visible] = 0
    return [f"{share:.1%} transparent, made black"] if share else []


def check_size(name: str, size: int, limit: int, unit: str = "pixels") -> None:
    """Raise ImageError `too_large` if a size exceeds its limit."""
    if size > limit:
        raise refused(name, "too_large", f"has {size:,} {unit}, the limit is {limit:,}; raise it or leave it out")


def refused(name: str, kind: FailureKind, what: str) -> ImageError:
    """Build the error that explains why a file cannot become an image."""
    return ImageError(f"{name} {what}", "decode", kind)
