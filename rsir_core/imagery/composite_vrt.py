"""Describe a composite's bands as one raster on one grid, in GDAL's VRT format, so that it reads windows of each."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import MaskFlags

from rsir_core.imagery.composite import Channel
from rsir_core.imagery.rgb import refused

_TYPES: Final = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "float32": "Float32", "float64": "Float64",
}  # fmt: skip
_COLOURS: Final = {1: ("Gray",), 3: ("Red", "Green", "Blue")}


class OpenBand(NamedTuple):
    """Hold a band of a composite whose file is open.

    Attributes:
        dataset: rasterio dataset of the file.
        name: of the file, beside the VRT.
        channel: what the composite says of the band.
    """

    dataset: Any
    name: str
    channel: Channel

    @property
    def dtype(self) -> str:
        """Type of the samples in the file."""
        return str(self.dataset.dtypes[self.channel.number - 1])

    @property
    def linear(self) -> tuple[float, float]:
        """Factor and summand from samples to physical values: the composite's, else those in the file."""
        _, number, scale, offset, _ = self.channel
        return (
            self.dataset.scales[number - 1] if scale is None else scale,
            self.dataset.offsets[number - 1] if offset is None else offset,
        )

    @property
    def nodata(self) -> float | None:
        """Sample value of pixels without data."""
        found: float | None = self.dataset.nodatavals[self.channel.number - 1]
        return found if self.channel.nodata is None else self.channel.nodata


class _Rectangle(NamedTuple):
    """Say where a band lies on the composite's grid, in pixels of that grid."""

    x: float
    y: float
    width: float
    height: float


def vrt_of(bands: Sequence[OpenBand], name: str) -> bytes:
    """Describe the bands as one raster, on the grid of the first of the finest; coarser ones are interpolated.

    Samples become physical values (float) if a band has a scale or an offset, or if the bands' types differ.

    Args:
        bands: three or one.
        name: URI of the composite, for messages.

    Raises:
        ImageError: `unsupported` if a file lacks its band, or they lie in different reference systems or are turned
            against each other.
    """
    for band in bands:
        _check(band)
    grid = min((band.dataset for band in bands), key=_pixel_area)
    placed = [_place(band, grid, name) for band in bands]
    root = ET.fromstring(_georeference(grid))  # noqa: S314 -- GDAL's own output
    for child in [child for child in root if child.tag in ("VRTRasterBand", "MaskBand")]:
        root.remove(child)
    physical = _physical_type(bands, placed, grid)
    for n, (band, place) in enumerate(zip(bands, placed, strict=True), 1):
        root.append(_raster_band(band, place, grid, physical))
        root[-1].set("band", str(n))
        ET.SubElement(root[-1], "ColorInterp").text = _COLOURS[len(bands)][n - 1]
    masked = [i for i, band in enumerate(bands) if _is_masked(band)]
    if masked:
        root.append(_mask_band(bands[masked[0]], placed[masked[0]], grid))
    return ET.tostring(root)


def _check(band: OpenBand) -> None:
    if band.channel.number > band.dataset.count:
        what = f"has {band.dataset.count} bands, and none with number {band.channel.number}; choose others with --bands"
        raise refused(band.channel.uri, "unsupported", what)
    if band.dtype not in _TYPES:
        raise refused(band.channel.uri, "unsupported", f"has samples of {band.dtype}; export real numbers")


def _pixel_area(dataset: Any) -> float:
    """Size of a pixel, to compare the datasets of one composite by how fine they are."""
    if dataset.transform.is_identity:
        return 1 / float(dataset.width * dataset.height)
    return abs(float(dataset.transform.determinant))


def _place(band: OpenBand, grid: Any, name: str) -> _Rectangle:
    """Compute where a band lies on the grid; where the files have no affine transform they cover the same ground."""
    dataset = band.dataset
    if grid.transform.is_identity or dataset.transform.is_identity:
        return _Rectangle(0, 0, grid.width, grid.height)
    if dataset.crs != grid.crs:
        what = f"has bands in different reference systems ({grid.crs}, {dataset.crs}); warp them to one"
        raise refused(name, "unsupported", what)
    to_grid, to_ground = (np.reshape(tuple(of.transform), (3, 3)) for of in (grid, dataset))  # not `@`: affine 3 alone
    (a, b, c), (d, e, f), _ = (np.linalg.inv(to_grid) @ to_ground).tolist()
    if max(abs(b), abs(d)) > 1e-6 * abs(a) or min(a, e) <= 0:
        raise refused(name, "unsupported", "has bands that are turned against each other; warp them to one grid")
    return _Rectangle(*(round(x, 6) for x in (c, f, a * dataset.width, e * dataset.height)))


def _physical_type(bands: Sequence[OpenBand], placed: Sequence[_Rectangle], grid: Any) -> str | None:
    """Choose the floating type if the samples do not stay as they are; None: they do."""
    types = {band.dtype for band in bands}
    uncovered = any(
        band.nodata is None and (max(p.x, p.y) > 0 or p.x + p.width < grid.width or p.y + p.height < grid.height)
        for band, p in zip(bands, placed, strict=True)
    )
    if len(types) == 1 and not uncovered and all(band.linear == (1, 0) for band in bands):
        return None
    return str(np.result_type(np.float32, *types))


def _raster_band(band: OpenBand, place: _Rectangle, grid: Any, physical: str | None) -> ET.Element:
    rows, columns = band.dataset.block_shapes[band.channel.number - 1]
    blocks = {"blockXSize": str(min(columns, grid.width)), "blockYSize": str(min(rows, grid.height))}
    element = ET.Element("VRTRasterBand", {"dataType": _TYPES[physical or band.dtype], **blocks})
    nodata = band.nodata if physical is None else np.nan
    if nodata is not None:
        ET.SubElement(element, "NoDataValue").text = repr(float(nodata))
    source = _source(element, band, place, grid)
    if physical is not None:
        scale, offset = band.linear
        ET.SubElement(source, "ScaleOffset").text = repr(float(offset))
        ET.SubElement(source, "ScaleRatio").text = repr(float(scale))
    if band.nodata is not None:
        ET.SubElement(source, "NODATA").text = repr(float(band.nodata))
    return element


def _mask_band(band: OpenBand, place: _Rectangle, grid: Any) -> ET.Element:
    element = ET.Element("MaskBand")
    mask = ET.SubElement(element, "VRTRasterBand", {"dataType": "Byte"})
    _source(mask, band, place, grid, f"mask,{band.channel.number}")
    return element


def _source(parent: ET.Element, band: OpenBand, place: _Rectangle, grid: Any, number: str = "") -> ET.Element:
    """Add the file as the source of a band; `number` defaults to the band's."""
    width, height = band.dataset.width, band.dataset.height
    native = (place.width, place.height) == (width, height) and float(place.x).is_integer() and place.y == int(place.y)
    smooth = {} if native or number else {"resampling": "bilinear"}
    source = ET.SubElement(parent, "ComplexSource", smooth)
    ET.SubElement(source, "SourceFilename", {"relativeToVRT": "1"}).text = band.name
    ET.SubElement(source, "SourceBand").text = number or str(band.channel.number)
    for tag, (x, y, across, down) in (("SrcRect", (0, 0, width, height)), ("DstRect", place)):
        ET.SubElement(source, tag, {"xOff": repr(x), "yOff": repr(y), "xSize": repr(across), "ySize": repr(down)})
    return source


def _is_masked(band: OpenBand) -> bool:
    flags = band.dataset.mask_flag_enums[band.channel.number - 1]
    return bool({MaskFlags.per_dataset, MaskFlags.alpha} & set(flags))


def _georeference(dataset: Any) -> bytes:
    """Describe a dataset as a VRT: its size, its place on earth in whatever form, and its metadata."""
    with rasterio.MemoryFile(ext=".vrt") as file:
        rasterio.shutil.copy(dataset, file.name, driver="VRT")
        return bytes(file.read())
