"""Tiles: windows of a scene, each with a URI that fully describes how to read it.

A tile's URI is the scene's URI with a fragment as W3C Media Fragments defines it for parts of a picture:
`s3://bucket/scene.tif#xywh=512,0,256,256`. It may be followed by `&size=` (width and height that the window is
resampled to), `&bands=` and `&stretch=` (the sample range that becomes 0 to 255, the same for all tiles of a scene).
"""

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from rasterio.enums import PhotometricInterp
from rasterio.windows import Window

from rsir_core.geo.acquisition_time import time_of
from rsir_core.geo.footprint import footprint_of
from rsir_core.geo.placement import placement_of
from rsir_core.imagery.orientation import orientation_in, turned
from rsir_core.imagery.rgb import (
    Decoded,
    Range,
    RasterRead,
    check_blocks,
    check_size,
    colour_bands,
    refused,
    rgb,
)
from rsir_core.storage.reading import open_file, reading

_NUMBER: Final = r"[-+.0-9einfa]+"
_URI: Final = re.compile(
    r"(?P<scene>.*)#xywh=(?P<window>\d+,\d+,\d+,\d+)(?:&size=(?P<size>\d+,\d+))?(?:&bands=(?P<bands>[\d,]+))?"
    rf"(?:&stretch=(?P<stretch>{_NUMBER},{_NUMBER}))?",
    re.DOTALL,
)


class Recipe(NamedTuple):
    """Describe how all tiles of a scene are read; None and () leave it to GDAL and `rgb`.

    Attributes:
        size: width and height that each window is resampled to.
        bands: numbers of three bands or of one.
        stretch: the sample range that becomes 0 to 255.
    """

    size: tuple[int, int] | None = None
    bands: tuple[int, ...] = ()
    stretch: Range | None = None

    def __str__(self) -> str:
        parts = {"size": self.size, "bands": self.bands, "stretch": self.stretch}
        return "".join(f"&{name}={','.join(f'{x:.17g}' for x in part)}" for name, part in parts.items() if part)


@dataclass(frozen=True)
class Tile:
    """Name a window of a scene; `parse` is the inverse of `str`.

    Attributes:
        scene: URI of the scene.
        window: in pixels of the scene.
        recipe: how the window is read.
    """

    scene: str
    window: Window
    recipe: Recipe

    def __str__(self) -> str:
        return f"{self.scene}{fragment(self.window)}{self.recipe}"

    @classmethod
    def parse(cls, uri: str) -> Self | None:
        """Parse a tile's URI; None for other URIs. Image files end with an extension and are never taken for tiles."""
        found = _URI.fullmatch(uri)
        if found is None:
            return None
        size, bands, stretch = (found[name] and found[name].split(",") for name in ("size", "bands", "stretch"))
        recipe = Recipe(
            (int(size[0]), int(size[1])) if size else None,
            tuple(int(band) for band in bands or ()),
            (float(stretch[0]), float(stretch[1])) if stretch else None,
        )
        return cls(found["scene"], Window(*(int(x) for x in found["window"].split(","))), recipe)


def fragment(window: Window) -> str:
    """Format the suffix that makes a scene's id a tile's id."""
    return "#xywh={},{},{},{}".format(*window.flatten())


def read_tile(dataset: Any, tile: Tile, max_pixels: int, orientation: int = 1) -> Decoded:
    """Read a window, in stored pixels, of an open scene, and rotate it upright by the scene's orientation.

    Raises:
        ImageError: stage `decode`; kind `unsupported`, `too_large`, `no_data`, or `corrupt` if the window reaches
            outside of the scene.
    """
    name, window, recipe = str(tile), tile.window, tile.recipe
    x, y, width, height = window.flatten()
    if width < 1 or height < 1 or x + width > dataset.width or y + height > dataset.height:
        what = f"reaches outside of the scene's {dataset.width}×{dataset.height} pixels; index the archive again"
        raise refused(name, "corrupt", what)
    size = recipe.size or (width, height)
    check_size(name, size[0] * size[1], max_pixels)
    bands = bands_of(dataset, recipe.bands, name)
    check_blocks(dataset, bands, name, max_pixels)
    shape = (size[1], size[0]) if recipe.size else None
    pixels, notes = rgb(dataset, bands, name, RasterRead(window, shape, recipe.stretch))
    footprint = footprint_of(dataset, window)
    return Decoded(turned(pixels, orientation), notes, time_of(dataset), footprint)


def read_whole(dataset: Any, name: str, stretch: Range | None, max_pixels: int) -> Decoded:
    """Read an open scene that is an image by itself.

    Raises:
        ImageError: stage `decode`; kind `unsupported`, `too_large`, `no_data` or `corrupt`.
    """
    check_size(name, dataset.width * dataset.height, max_pixels)
    bands = bands_of(dataset, (), name)
    check_blocks(dataset, bands, name, max_pixels)
    pixels, notes = rgb(dataset, bands, name, RasterRead(stretch=stretch))
    return Decoded(pixels, notes, time_of(dataset), footprint_of(dataset))


def orientation_of_scene(dataset: Any, uri: str) -> int:
    """Read the orientation (1 to 8) of an open TIFF; 1 if it is georeferenced.

    Raises:
        ImageError: stage `read` if the file cannot be read.
    """
    if dataset.driver != "GTiff" or placement_of(dataset) is not None:
        return 1
    with reading(uri), open_file(uri) as file:
        return orientation_in(file)


def bands_of(dataset: Any, wanted: tuple[int, ...], name: str) -> list[int]:
    """Return the wanted bands if any are given, else those of `colour_bands`.

    Raises:
        ImageError: `unsupported`.
    """
    default = colour_bands(dataset, name)
    if dataset.photometric == PhotometricInterp.cielab:  # libtiff's conversion is off by up to 49 of 255
        raise refused(name, "unsupported", "is CIELAB; convert it to RGB, to read it by windows")
    if wanted and max(wanted) > dataset.count:
        raise refused(name, "unsupported", f"has {dataset.count} bands; choose others with --bands")
    return list(wanted) or default
