"""Queries and their ranked images, right ones framed green and wrong ones red: drawn, and as thumbnails for a page."""

import io
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from PIL import Image

from rsir_core.arrays import Pixels
from rsir_core.errors import ImageError
from rsir_core.imagery.decode import read_picture
from rsir_core.models.regions import Box, Region

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

INK, MUTED, RIGHT, WRONG, OBJECT = "#1f2933", "#7b8794", "#2e9d5b", "#d64545", "#ffd84d"
CELL: Final = 1.55  # inches
DRAWN: Final = 512  # pixels of the longer side, at most, in the figure
SHOWN_AS_READ: Final = sys.maxsize  # pixels: what is shown was described once, within the limits of that job
GREY: Final = np.full((256, 256, 3), 200, np.uint8)  # in place of an image that can no longer be read
THUMBNAIL: Final = 144  # pixels of the longer side


class GalleryImage(NamedTuple):
    """Hold one image of a gallery row."""

    uri: str
    region: Region
    object_box: Box | None
    class_name: str
    probability: float
    distance: float  # to the query, by which it is ranked; 0 for the query

    @property
    def words(self) -> str:
        """Say its class and how confident the model is of it."""
        return f"{self.class_name.replace('_', ' ')} {self.probability:.2f}"


class GalleryRow(NamedTuple):
    """Hold a labelled query and its first results."""

    label: str
    note: str  # why this query is shown; may be empty
    way: str  # how they were ranked, in words; empty where all strips are of one way
    measure: str  # what the distance is, in short
    query: GalleryImage
    results: list[GalleryImage]  # best first, the query's own row left out
    right: list[bool]  # whether each is of the query's label


def draw_strips(strips: Sequence[GalleryRow], explanation: Sequence[str]) -> "Figure":
    """Draw one row per query: the query, then its results by rank.

    Args:
        strips: one at least.
        explanation: lines below them.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 -- writes a font cache into the home when it is imported

    columns = 1 + max(len(strip.results) for strip in strips)
    width, height = columns * CELL, len(strips) * (CELL + 0.42) + 0.75
    figure = Figure(figsize=(width, height), facecolor="white")
    grid = figure.add_gridspec(
        len(strips), columns, left=0.01, right=0.99, bottom=0.9 / height, top=1 - 0.3 / height, wspace=0.07, hspace=0.3
    )
    for row, strip in enumerate(strips):
        axes = figure.add_subplot(grid[row, 0])
        _show(axes, strip.query, INK)
        axes.set_title("query" if row == 0 else "", fontsize=10, color=INK)
        caption = f"{strip.label.replace('_', ' ')}\n{strip.way or f'taken for {strip.query.words}'}"
        axes.set_xlabel(caption, fontsize=7, color=INK, labelpad=4, parse_math=False)
        for rank, (result, right) in enumerate(zip(strip.results, strip.right, strict=True), 1):
            axes = figure.add_subplot(grid[row, rank])
            axes.set_title(str(rank) if row == 0 else "", fontsize=10, color=INK)
            _show(axes, result, RIGHT if right else WRONG)
            caption = f"{result.words}\n{strip.measure} {result.distance:.2g}"
            axes.set_xlabel(caption, fontsize=7, color=MUTED, labelpad=4, parse_math=False)
    for place, line in enumerate(explanation):
        figure.text(0.01, (0.34 - 0.17 * place) / height, line, fontsize=7.5, color=MUTED, va="center")
    return figure


def thumbnail(uri: str) -> tuple[bytes, int, int]:
    """Make a small JPEG of an image, with the height and width that the image has itself; grey if it is gone."""
    pixels = _pixels(uri)
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=75)
    return data.getvalue(), pixels.shape[0], pixels.shape[1]


def _pixels(uri: str) -> Pixels:
    """Read an image to show; a picture of others is worth more than none."""
    try:
        return read_picture(uri, SHOWN_AS_READ).pixels
    except ImageError as error:
        log.warning("shown grey: %s", error)
        return GREY


def _show(axes: "Axes", shown: GalleryImage, frame: str) -> None:
    """Show the image, dimmed outside its key region, with its representative object."""
    from matplotlib.patches import PathPatch  # noqa: PLC0415 -- as above
    from matplotlib.path import Path as Outline  # noqa: PLC0415 -- as above

    pixels = _pixels(shown.uri)
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels)
    small.thumbnail((DRAWN, DRAWN))  # a page of them is held until it is drawn
    axes.imshow(small, interpolation="lanczos", extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    region = shown.region
    outer = [(0, 0), (0, height), (width, height), (width, 0), (0, 0)]
    right, bottom = region.x + region.width, region.y + region.height
    inner = [(region.x, region.y), (right, region.y), (right, bottom), (region.x, bottom), (region.x, region.y)]
    shifted = [(x - 0.5, y - 0.5) for x, y in outer + inner]  # imshow's pixels are centred on whole numbers
    codes = [Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY] * 2
    axes.add_patch(PathPatch(Outline(shifted, codes), facecolor="black", alpha=0.5, linewidth=0))
    _outline(axes, Box(region.x, region.y, right, bottom), "white")
    if shown.object_box is not None:
        _outline(axes, shown.object_box, OBJECT)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    for spine in axes.spines.values():
        spine.set(edgecolor=frame, linewidth=2.5)


def _outline(axes: "Axes", box: Box, colour: str) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415 -- as above

    corner = (box.x0 - 0.5, box.y0 - 0.5)
    axes.add_patch(Rectangle(corner, box.x1 - box.x0, box.y1 - box.y0, fill=False, edgecolor=colour, linewidth=0.8))
