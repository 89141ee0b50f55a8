"""What an evaluation leaves behind: metrics.json, tables and a plot."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich import box
from rich.table import Table

from rsir_core.evaluation import Evaluation, Spread, named
from rsir_core.storage import put_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS: Final = 60  # labels in the plot; of more, those of lowest mAP
INK, MUTED, MAIN, OTHER = "#1f2933", "#7b8794", "#1b6ca8", "#b8c9d9"
TITLE: Final[dict[str, Any]] = {"loc": "left", "fontsize": 10, "color": INK}


def write_report(folder: str, evaluation: Evaluation) -> None:
    """Write arms.csv, per_class.csv, retrieval.png, retrieval.svg and, last, metrics.json into a folder (any URI)."""
    folder = folder.rstrip("/")
    metrics = evaluation.metrics()
    arms = [
        {
            **evaluation.row(arm),
            **{key: p for k, at in evaluation.precision_at(arm).items() for key, p in named(f"p@{k}", at).items()},
        }
        for arm in evaluation.arms
    ]
    per_class = [{"label": label, **scores} for label, scores in metrics["per_class"].items()]
    put_file(f"{folder}/arms.csv", _csv(arms))
    put_file(f"{folder}/per_class.csv", _csv(per_class))
    figure = plot(evaluation)
    for kind in ("png", "svg"):
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, dpi=150)
        put_file(f"{folder}/retrieval.{kind}", picture.getvalue())
    put_file(f"{folder}/metrics.json", (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())


def arms_table(evaluation: Evaluation) -> Table:
    """The arms for a terminal of 80 columns, the main one in bold; over several seeds, means."""
    metrics = evaluation.metrics()
    title = f"{metrics['queries']} queries, {metrics['database']} images"
    title += f", means over {len(evaluation.runs)} seeds" if len(evaluation.runs) > 1 else ""
    table = Table(title=title, box=box.SIMPLE)
    for heading in ("region", "features", "distance"):
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


def plot(evaluation: Evaluation) -> "Figure":
    """Mean average precision and ANMRR: of each arm above, of the main arm by class below, the lowest first."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- writes a font cache into the home when it is imported

    main = evaluation.main
    per_class = evaluation.per_class(main)
    by_map = sorted(per_class.items(), key=lambda item: (item[1].map, item[0]))[:MOST_BARS]
    heights = [0.3 * len(evaluation.arms) + 0.9, 0.24 * len(by_map) + 0.9]  # inches
    figure = Figure(figsize=(8, sum(heights)), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=heights)

    arms = [(evaluation.name(arm), evaluation.map(arm), evaluation.anmrr(arm)) for arm in evaluation.arms]
    _bars(upper, arms, [MAIN if arm == main else OTHER for arm in evaluation.arms])
    upper.set_title(f"Retrieval by arm ({len(evaluation.of(main)[0].queries)} queries)", **TITLE)

    _bars(lower, [(label, scores.map, scores.anmrr) for label, scores in by_map], [MAIN] * len(by_map))
    lower.axvline(100 * evaluation.map(main).mean, color=INK, linewidth=0.8, linestyle=":")
    which = "By class" if len(by_map) == len(per_class) else f"The {MOST_BARS} classes of lowest mAP"
    lower.set_title(f"{which}: {evaluation.name(main)} (dotted: mean)", **TITLE)
    return figure


def _bars(axes: "Axes", values: Sequence[tuple[str, Spread, Spread]], colours: Sequence[str]) -> None:
    """Horizontal bars of mAP, the first on top, with mAP and ANMRR in figures at the right."""
    places = np.arange(len(values))
    axes.barh(places, [100 * precision.mean for _, precision, _ in values], color=colours, height=0.72)
    axes.set_yticks(
        places, [name for name, _, _ in values], fontsize=8, color=INK, parse_math=False
    )  # `$` is a character
    for place, (_, precision, rank) in enumerate(values):
        axes.text(112, place, f"{100 * precision.mean:.2f}", va="center", ha="right", fontsize=8, color=INK)
        axes.text(124, place, f"{rank.mean:.4f}", va="center", ha="right", fontsize=8, color=MUTED)
    axes.text(112, -0.75, "mAP %", ha="right", fontsize=8, color=INK)
    axes.text(124, -0.75, "ANMRR", ha="right", fontsize=8, color=MUTED)
    axes.set(xlim=(0, 124), ylim=(len(values) - 0.4, -0.6), xticks=range(0, 101, 20))
    axes.tick_params(axis="x", labelsize=8, colors=MUTED)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)


def _csv(lines: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()
