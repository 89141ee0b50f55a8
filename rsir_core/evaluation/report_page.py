"""One self-contained HTML page of an evaluation: no script, no other host, pictures and plots inside."""

import base64
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from rsir_core.evaluation import paper
from rsir_core.evaluation.arms import Arm
from rsir_core.evaluation.evaluation import Evaluation
from rsir_core.evaluation.findings import confused, findings, subject
from rsir_core.evaluation.gallery import GalleryImage, GalleryRow, thumbnail
from rsir_core.evaluation.plots import compared
from rsir_core.evaluation.tables import Cells, PaperTable, Tables
from rsir_core.index.no_match import RATE

TWINS: Final = 6  # pairs of one picture that are shown
FINDINGS: Final = ("unseen", "no_match", "calibration", "duplicates")
PLOTS: Final = ("table3.svg", "figure4.svg", "recall_precision.svg", "confusion.svg")


def render(evaluation: Evaluation, plots: Mapping[str, bytes]) -> str:
    """Render the page as HTML.

    Args:
        evaluation: what it shows.
        plots: files by name, of which those in `PLOTS` are shown.
    """
    pages = PackageLoader("rsir_core.evaluation", "pages")
    template = Environment(
        loader=pages, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html")
    tables, main = Tables(evaluation), evaluation.main
    by_name: dict[str, PaperTable | None] = {
        "table3": tables.table3(), "figure4": tables.figure4(), "table4": tables.table4(), "table5": tables.table5(),
        "objects": tables.objects(), "views": tables.views(), "classes": tables.classes(),
        "objects_per_class": tables.objects_per_class(), "baseline": tables.baseline(), "unseen": tables.unseen(),
    }  # fmt: skip
    arms = {arm: _arm(evaluation, arm) for arm in evaluation.arms}
    return template.render(
        style=(files("rsir_core.evaluation") / "pages" / "report.css").read_text("utf-8"),
        subject=subject(evaluation),
        map=evaluation.map(main),
        anmrr=evaluation.anmrr(main),
        precision=evaluation.precision_at(main),
        ceiling=_ceiling(evaluation),
        accuracy=evaluation.accuracy,
        comparable=tables.comparable,
        paper=paper.MAIN,
        tables=by_name,
        findings=findings(evaluation, by_name),
        plots={name.removesuffix(".svg"): _data("svg+xml", data) for name, data in plots.items() if name in PLOTS},
        gallery=_gallery(evaluation.runs[0].strips),
        compared=[arms[arm] for arm in compared(evaluation)],
        confused=confused(evaluation),
        fewest_queries=math.ceil(1 / RATE) - 1,
        found={name: evaluation.findings.get(name) for name in FINDINGS},
        twins=_twins(evaluation.findings.get("duplicates")),
        seed=evaluation.runs[0].seed if len(evaluation.runs) > 1 else None,
        arms=list(arms.values()),
        protocol={key: _told(value) for key, value in evaluation.protocol.items()},
        behind=_behind,
        missing=max([1 - scores.map.mean for scores in evaluation.per_class(main).values()]) or 1,
    )


def _arm(evaluation: Evaluation, arm: Arm) -> dict[str, Any]:
    return {
        "name": evaluation.name(arm),
        "words": evaluation.words(arm),
        "map": evaluation.map(arm),
        "anmrr": evaluation.anmrr(arm),
        "precision": evaluation.precision_at(arm),
        "main": arm == evaluation.main,
    }


def _behind(cells: Cells, group: str, measure: str) -> bool:
    """Tell whether ours is worse than the paper's figure of the same kind, as far as that is printed."""
    rivals = {"ours": "paper", "key_region": "paper", "whole_plain": "paper_whole", "plain": "paper"}
    ours, theirs = cells.get(f"{group}_{measure}"), cells.get(f"{rivals.get(group)}_{measure}")
    if ours is None or theirs is None:
        return False
    return ours.mean < theirs.mean - 0.00005 if measure == "map" else ours.mean > theirs.mean + 0.00005


def _ceiling(evaluation: Evaluation) -> list[float]:
    """Compute the precisions of a perfect ranking; empty where all are 1."""
    most = list(evaluation.highest_precision_at.values())
    return most if min(most) < 1 else []


def _gallery(strips: Sequence[GalleryRow]) -> list[list[dict[str, Any]]]:
    """Group the gallery rows of one query."""
    sources: dict[str, tuple[str, int, int]] = {}
    for shown in (image for strip in strips for image in (strip.query, *strip.results)):
        if shown.uri not in sources:
            data, height, width = thumbnail(shown.uri)
            sources[shown.uri] = _data("jpeg", data), height, width
    by_query: dict[str, list[dict[str, Any]]] = {}
    for strip in strips:
        results = [
            {**_picture(image, strip.label, sources), "right": right, "distance": f"{image.distance:#.2g}"}
            for image, right in zip(strip.results, strip.right, strict=True)
        ]
        told = {
            "label": strip.label,
            "note": strip.note,
            "way": strip.way,
            "measure": strip.measure,
            "count": sum(strip.right),
        }
        by_query.setdefault(strip.query.uri, []).append(
            {**told, "query": _picture(strip.query, strip.label, sources), "results": results}
        )
    return list(by_query.values())


def _twins(found: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """List the first pairs of one picture, to be looked at."""

    def image(pair: Mapping[str, Any], end: str) -> dict[str, Any]:
        source = _data("jpeg", thumbnail(pair[f"{end}_uri"])[0])
        return {"source": source, "name": pair[end], "split": pair[f"{end}_split"]}

    pairs = found["pairs"][:TWINS] if found else []
    return [{"kind": pair["kind"], "images": [image(pair, end) for end in ("first", "second")]} for pair in pairs]


def _picture(shown: GalleryImage, label: str, sources: Mapping[str, tuple[str, int, int]]) -> dict[str, Any]:
    source, height, width = sources[shown.uri]
    region, box = shown.region, shown.object_box
    cut = (region.width, region.height) != (width, height)
    corners = (region.x, region.y, region.x + region.width, region.y + region.height)
    return {
        "source": source,
        "words": shown.words,
        "caption": f"{shown.probability:.2f}" if shown.class_name == label else shown.words,
        "region": _place(corners, height, width) if cut else None,
        "object": _place(box, height, width) if box is not None else None,
    }


def _place(corners: tuple[float, float, float, float], height: int, width: int) -> str:
    """Place a box in an image by CSS."""
    x0, y0, x1, y1 = corners
    parts = {"left": x0 / width, "top": y0 / height, "width": (x1 - x0) / width, "height": (y1 - y0) / height}
    return ";".join(f"{name}:{100 * share:.1f}%" for name, share in parts.items())


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _told(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case list():
            return ", ".join(_told(part) for part in value)
        case dict():
            return ", ".join(f"{name}: {_told(part)}" for name, part in value.items())
        case _:
            return str(value)
