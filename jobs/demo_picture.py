"""One picture of queries and their ranked results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline

from rsir_core.labels import LabelledImage
from rsir_core.raster import read_picture
from rsir_core.regions import Box, Region

INK, MUTED, RIGHT, WRONG, OBJECT = "#1f2933", "#7b8794", "#2e9d5b", "#d64545", "#ffd84d"
CELL: Final = 1.55  # inches


class Shown(NamedTuple):
    """One image of the picture."""

    uri: str
    region: Region
    object_box: Box | None
    class_name: str
    probability: float
    weighted_distance: float  # 0 for the query


class Answer(NamedTuple):
    """A labelled query and what the endpoint answered to its upload."""

    label: str
    query: Shown
    results: list[Shown]  # best first, the query's own row left out
    found_itself: bool  # its own row came first

    @classmethod
    def of(cls, query: LabelledImage, answer: Mapping[str, Any]) -> "Answer":
        """From the JSON that `POST /search` gives to an upload of an indexed image."""
        asked, results = answer["query"], answer["results"]
        found = asked["object"]
        box = None if found is None else Box(**found["box"])
        shown = Shown(query.uri, Region(**asked["region"]), box, asked["class"], asked["probability"], 0.0)
        others = [_result(row) for row in results if row["uri"] != query.uri]
        return cls(query.label, shown, others, bool(results) and results[0]["uri"] == query.uri)


def draw_answers(answers: Sequence[Answer], labels: Mapping[str, str], file: Path) -> None:
    """Write the picture: a row per query, then its results by rank.

    Args:
        answers: what to show, at least one.
        labels: true class by uri; a result whose label differs from the query's is framed as wrong.
        file: PNG to write.
    """
    columns = 1 + max(len(answer.results) for answer in answers)
    width, height = columns * CELL, len(answers) * (CELL + 0.42) + 0.75
    figure = Figure(figsize=(width, height), facecolor="white")
    grid = figure.add_gridspec(
        len(answers), columns, left=0.01, right=0.99, bottom=0.9 / height, top=1 - 0.3 / height, wspace=0.07, hspace=0.3
    )
    for row, answer in enumerate(answers):
        axes = figure.add_subplot(grid[row, 0])
        _show(axes, answer.query, INK)
        axes.set_title("query" if row == 0 else "", fontsize=10, color=INK)
        axes.set_xlabel(
            f"{answer.label.replace('_', ' ')}\ntaken for {_words(answer.query)}", fontsize=7, color=INK, labelpad=4
        )
        for rank, result in enumerate(answer.results, 1):
            axes = figure.add_subplot(grid[row, rank])
            axes.set_title(str(rank) if row == 0 else "", fontsize=10, color=INK)
            _show(axes, result, RIGHT if labels.get(result.uri) == answer.label else WRONG)
            axes.set_xlabel(f"{_words(result)}\nWD {result.weighted_distance:.2g}", fontsize=7, color=MUTED, labelpad=4)
    _explain(figure)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


def _result(row: Mapping[str, Any]) -> Shown:
    box = None if row["object_box"] is None else Box(**row["object_box"])
    return Shown(row["uri"], Region(**row["region"]), box, row["class"], row["probability"], row["weighted_distance"])


def _words(shown: Shown) -> str:
    return f"{shown.class_name.replace('_', ' ')} {shown.probability:.2f}"


def _show(axes: Axes, shown: Shown, frame: str) -> None:
    """The image, dimmed outside its key region, with its representative object."""
    pixels = read_picture(shown.uri).pixels
    height, width = pixels.shape[:2]
    axes.imshow(pixels, interpolation="lanczos")
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


def _outline(axes: Axes, box: Box, colour: str) -> None:
    corner = (box.x0 - 0.5, box.y0 - 0.5)
    axes.add_patch(Rectangle(corner, box.x1 - box.x0, box.y1 - box.y0, fill=False, edgecolor=colour, linewidth=0.8))


def _explain(figure: Figure) -> None:
    lines = (
        "Left: the uploaded query. Then its nearest images by weighted distance (WD), nearest first; the query's own "
        "row, which comes before them, is left out.",
        "Bright inside the white line: the key region that was compared. Yellow: the representative object. "
        "Green frame: of the query's class, red: of another. Figures: class and its probability.",
    )
    for place, line in enumerate(lines):
        figure.text(0.01, (0.34 - 0.17 * place) / figure.get_figheight(), line, fontsize=7.5, color=MUTED, va="center")
