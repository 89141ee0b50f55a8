"""Read virtual rasters of GDAL (VRT): what files one is made of, and the same raster with other names for them.

A VRT may name any file, address or program. Here it may name rasters only, and a remote VRT no file of this machine.
"""

import posixpath
import re
from typing import Final
from xml.etree import ElementTree as ET

from rsir_core.imagery.rgb import refused

MAX_BYTES: Final = 16 * 1024**2
_STORES: Final = {"/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://", "/vsicurl/": ""}
_SOURCES: Final = ("SimpleSource", "ComplexSource", "AveragedSource", "NoDataFromMaskSource")
_TAGS: Final = frozenset([
    "VRTDataset", "SRS", "GeoTransform", "GCPList", "GCP", "Metadata", "MDI", "OverviewList", "MaskBand",
    "VRTRasterBand", "Description", "UnitType", "Offset", "Scale", "NoDataValue", "HideNoDataValue", "ColorInterp",
    "ColorTable", "Entry", "CategoryNames", "Category", "Overview", *_SOURCES, "SourceFilename", "SourceBand",
    "SourceProperties", "SrcRect", "DstRect", "NODATA", "ScaleOffset", "ScaleRatio", "LUT", "UseMaskBand",
    "ColorTableComponent", "Exponent", "SrcMin", "SrcMax", "DstMin", "DstMax", "Clamp", "BlockXSize", "BlockYSize",
])  # fmt: skip
_DROPPED: Final = ("OpenOptions", "Histograms")  # the first could make GDAL open other files


def is_vrt(uri: str) -> bool:
    """Tell whether a file is a VRT by its name."""
    return uri.lower().endswith(".vrt")


def sources_of(data: bytes, uri: str) -> tuple[bytes, list[str]]:
    """Return a VRT whose sources are called `file0`, `file1`, … beside it, and their URIs.

    Args:
        data: the VRT.
        uri: where it lies; sources may be relative to it.

    Raises:
        ImageError: `corrupt` if it is no XML; `unsupported` if it is a warped, derived or raw VRT, or if it names what
            it may not.
    """
    try:
        root = ET.fromstring(data)  # noqa: S314 -- expat limits how entities grow, and the process has its limits
    except ET.ParseError as error:
        raise refused(uri, "corrupt", f"cannot be read as a VRT: {error}") from error
    _check(root, uri)
    uris: list[str] = []
    for element in root.iter("SourceFilename"):
        source = _uri_of((element.text or "").strip(), element.get("relativeToVRT") == "1", uri)
        if source not in uris:
            uris.append(source)
        element.text = f"file{uris.index(source)}"
        element.set("relativeToVRT", "1")
    return ET.tostring(root), uris


def _check(root: ET.Element, uri: str) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in _DROPPED]:
            parent.remove(child)
    for element in root.iter():
        kind = element.get("subClass")
        if element.tag not in _TAGS or kind not in (None, "VRTSourcedRasterBand"):
            what = f"is a VRT with {kind or f'<{element.tag}>'}, which is not read; translate it to GeoTIFF"
            raise refused(uri, "unsupported", what)


def _uri_of(name: str, is_relative: bool, uri: str) -> str:
    store = next((store for store in _STORES if name.startswith(store)), None)
    if store is not None:
        return _STORES[store] + name.removeprefix(store)
    if re.match(r"https?://", name):
        return name
    is_remote = "://" in uri
    if is_relative and not name.startswith("/"):
        protocol, mark, path = uri.rpartition("://")
        return protocol + mark + posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
    if name.startswith("/") and not name.startswith("/vsi") and not is_remote:
        return name
    raise refused(uri, "unsupported", f"is a VRT that names {name!r}, which it may not; name files beside it")
