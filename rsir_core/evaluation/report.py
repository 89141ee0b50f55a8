"""Write an evaluation's files: metrics.json, tables, plots, and one page that shows them."""

import csv
import io
import json
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table

from rsir_core.evaluation.evaluation import Evaluation, named
from rsir_core.evaluation.gallery import draw_strips
from rsir_core.evaluation.plots import confusion_shares, plot_arms, plot_confusion, plot_recall_precision, plot_table
from rsir_core.evaluation.report_page import render
from rsir_core.evaluation.tables import Tables
from rsir_core.storage.filesystem import file_system, put_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

GALLERY_NOTES: Final = (
    "Left: the query. Then the nearest other images, nearest first, by the distance (d) or weighted distance (WD).",
    "Bright inside the white line: what was compared. Yellow: the representative object. "
    "Green frame: of the query's class, red: of another. Figures: class and its probability.",
)
METRICS: Final = "metrics.json"
WIDE: Final = 12  # inches; wider figures are of photographs
PLOTTED: Final = ("table3", "figure4")  # tables over sizes


def write_report(folder: str, evaluation: Evaluation) -> None:
    """Write CSVs, plots (PNG and SVG), report.html and, last, metrics.json into a folder (any URI).

    Files that an evaluation there before this one has left, and this one lacks, go.
    """
    folder = folder.rstrip("/")
    metrics = evaluation.metrics()
    as_text = not has_glyphs(evaluation.runs[0].labels)
    if as_text:
        log.warning("labels have characters that the font of the plots lacks: boxes in the PNGs; the SVGs show them")
    pictures = {
        f"{name}.{kind}": _picture(figure, kind, as_text)
        for name, figure in draw(evaluation).items()
        for kind in ("svg", "png")
    }
    files = {f"{name}.csv": _csv(lines) for name, lines in csv_lines(evaluation, metrics).items()} | pictures
    files["report.html"] = render(evaluation, pictures).encode()
    before = _files_of(folder)
    for name, content in files.items():
        put_file(f"{folder}/{name}", content)
    metrics["files"] = sorted(files)
    put_file(f"{folder}/{METRICS}", (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())
    fs, path = file_system(folder)
    for name in before - files.keys():
        fs.rm_file(f"{path}/{name}")


def _files_of(folder: str) -> set[str]:
    """List the files that an evaluation says to have written and that are there still; of its own folder only."""
    fs, path = file_system(folder)
    try:
        named = json.loads(fs.cat_file(f"{path}/{METRICS}")).get("files", [])
    except (FileNotFoundError, ValueError, AttributeError):  # none, or something else of that name
        return set()
    return {there.rsplit("/", 1)[-1] for there in fs.ls(path, detail=False)}.intersection(named)


def csv_lines(evaluation: Evaluation, metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Make the lines of each CSV, by name."""
    names, share = confusion_shares(evaluation)
    columns = [f"{name} " if name == "query" else name for name in names]  # two columns of one name would be one
    curves = {arm: evaluation.recall_precision(arm).tolist() for arm in evaluation.arms}
    return {
        "arms": [
            evaluation.row(arm)
            | {key: p for k, at in evaluation.precision_at(arm).items() for key, p in named(f"p@{k}", at).items()}
            for arm in evaluation.arms
        ],
        "per_class": [{"label": label, **scores} for label, scores in metrics["per_class"].items()],
        "recall_precision": [
            {"arm": evaluation.name(arm), **{f"{i / 10:g}": p for i, p in enumerate(curve)}}
            for arm, curve in curves.items()
        ],
        "confusion": [
            {"query": name, **dict(zip(columns, of_query, strict=True))}
            for name, of_query in zip(names, share.tolist(), strict=True)
        ],
        **{table.name: table.lines() for table in Tables(evaluation).all()},
        **({"figure5": strips} if (strips := _strips(evaluation)) else {}),
    }


def _strips(evaluation: Evaluation) -> list[dict[str, Any]]:
    """List the gallery rows of all seeds, of which figure and page show those of the first."""
    return [
        {"seed": run.seed, "label": strip.label, "query": strip.query.uri, "note": strip.note, "way": strip.way,
         "right": sum(strip.right), "shown": len(strip.right)}
        for run in evaluation.runs
        for strip in run.strips
    ]  # fmt: skip


def draw(evaluation: Evaluation) -> "dict[str, Figure]":
    """Draw the plots, by name."""
    figures = {
        "retrieval": plot_arms(evaluation),
        "recall_precision": plot_recall_precision(evaluation),
        "confusion": plot_confusion(evaluation),
    }
    figures |= {table.name: plot_table(table) for table in Tables(evaluation).all() if table.name in PLOTTED}
    if strips := evaluation.runs[0].strips:
        figures["figure5"] = draw_strips(strips, GALLERY_NOTES)
    return figures


def arms_table(evaluation: Evaluation) -> Table:
    """Format the arms for a terminal of 80 columns, the main one in bold; over several seeds, means."""
    metrics = evaluation.metrics()
    title = f"{metrics['queries']} queries, {metrics['database']} images"
    title += f", means over {len(evaluation.runs)} seeds" if len(evaluation.runs) > 1 else ""
    table = Table(title=title, box=box.SIMPLE)
    table.add_column("region", overflow="fold")  # long names take several lines, so that all figures have room
    for heading in ("features", "distance"):
        table.add_column(heading, no_wrap=True)
    for heading in ("mAP %", "ANMRR", "P@1 %", "P@10 %"):
        table.add_column(heading, no_wrap=True, justify="right")
    for arm in evaluation.arms:
        region, size, distance = evaluation.words(arm)
        precision = evaluation.precision_at(arm)
        table.add_row(
            region,
            size,
            distance,
            f"{100 * evaluation.map(arm).mean:.2f}",
            f"{evaluation.anmrr(arm).mean:.4f}",
            f"{100 * precision[1].mean:.2f}",
            f"{100 * precision[10].mean:.2f}",
            style="bold" if arm == evaluation.main else None,
        )
    return table


def has_glyphs(labels: Iterable[str]) -> bool:
    """Tell whether the plots' font has all characters of labels; Matplotlib draws boxes in place of others."""
    from matplotlib.font_manager import findfont, get_font  # noqa: PLC0415 -- as below

    font = get_font(findfont("DejaVu Sans"))
    return all(font.get_char_index(ord(character)) for character in set("".join(labels)))


def _picture(figure: "Figure", kind: str, as_text: bool = False) -> bytes:
    """Encode a figure as a file; the same figure is the same file twice.

    Args:
        figure: to encode.
        kind: svg or png.
        as_text: leave words in SVGs to the fonts of who looks at them, in place of outlines.
    """
    import matplotlib as mpl  # noqa: PLC0415 -- writes a font cache into the home when it is imported

    data = io.BytesIO()
    fonts = "none" if as_text else "path"
    with mpl.rc_context({"svg.hashsalt": "rsir", "svg.fonttype": fonts}), warnings.catch_warnings():
        if as_text:
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # said once, by `write_report`
        dpi = 150 if kind == "png" and figure.get_figwidth() < WIDE else 72  # of an SVG: that of photographs in it
        figure.savefig(data, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return data.getvalue()


def _csv(lines: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    names = dict.fromkeys(name for line in lines for name in line)  # what one seed alone has lacks a deviation
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()
