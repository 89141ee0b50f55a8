"""What an evaluation leaves behind: metrics.json, tables and a plot."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
from rich import box
from rich.table import Table

from rsir_core.metrics import Scores
from rsir_core.storage import put_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ArmRegion = Literal["key_region", "whole_image"]
ARM_REGIONS: Final[tuple[ArmRegion, ...]] = get_args(ArmRegion)

MOST_BARS: Final = 60  # labels in the plot; of more, those of lowest mAP
INK, MUTED, MAIN, OTHER = "#1f2933", "#7b8794", "#1b6ca8", "#b8c9d9"
TITLE: Final[dict[str, Any]] = {"loc": "left", "fontsize": 10, "color": INK}


@dataclass(frozen=True)
class Arm:
    """One way to rank, and its scores."""

    region: ArmRegion  # what of an image is described
    pca: bool  # the features, else the embeddings at unit length
    weighted: bool  # by the weighted distance (paper eq. 8), else by the distance alone
    dimensions: int
    scores: Scores

    @property
    def name(self) -> str:
        """In words."""
        reduced = f"PCA {self.dimensions}" if self.pca else f"{self.dimensions} dimensions"
        return f"{self.region.replace('_', ' ')}, {reduced}, {'weighted' if self.weighted else 'plain'}"

    def row(self) -> dict[str, Any]:
        """As `metrics.json` and the tables have it."""
        return {
            "region": self.region,
            "pca": self.pca,
            "weighted": self.weighted,
            "dimensions": self.dimensions,
            "map": self.scores.map,
            "anmrr": self.scores.anmrr,
        }


@dataclass(frozen=True)
class Evaluation:
    """All arms over one database of n labelled images, each of which is a query."""

    arms: Sequence[Arm]
    labels: Sequence[str]  # n
    accuracy: float | None  # share of images whose class is their label; None: labels are no class names
    protocol: Mapping[str, Any]

    @cached_property
    def main(self) -> Arm:
        """The arm that the scores without a name are of: weighted features, of the key region if that was run."""
        candidates = [arm for arm in self.arms if arm.pca and arm.weighted]
        return min(candidates, key=lambda arm: ARM_REGIONS.index(arm.region))

    @cached_property
    def per_class(self) -> dict[str, Scores]:
        """The main arm's scores by label of the query."""
        return self.main.scores.per_label(self.labels)

    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return {
            "map": self.main.scores.map,
            "anmrr": self.main.scores.anmrr,
            "accuracy": self.accuracy,
            "queries": len(self.main.scores.queries),
            "database": len(self.labels),
            "per_class": {
                label: {"map": s.map, "anmrr": s.anmrr, "queries": len(s.queries)}
                for label, s in self.per_class.items()
            },
            "protocol": {"main_arm": self.main.name, "excluded_queries": self.main.scores.excluded, **self.protocol},
            "arms": [
                {**arm.row(), "precision_at": {str(k): p for k, p in arm.scores.precision_at.items()}}
                for arm in self.arms
            ],
        }


def write_report(folder: str, evaluation: Evaluation) -> None:
    """Write arms.csv, per_class.csv, retrieval.png, retrieval.svg and, last, metrics.json into a folder (any URI)."""
    folder = folder.rstrip("/")
    metrics = evaluation.metrics()
    arms = [{**arm.row(), **{f"p@{k}": p for k, p in arm.scores.precision_at.items()}} for arm in evaluation.arms]
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
    """The arms for a terminal of 80 columns, the main one in bold."""
    title = f"{len(evaluation.main.scores.queries)} queries, {len(evaluation.labels)} images"
    table = Table(title=title, box=box.SIMPLE)
    for heading in ("region", "features", "distance"):
        table.add_column(heading, no_wrap=True)
    for heading in ("mAP %", "ANMRR", "P@1 %", "P@10 %"):
        table.add_column(heading, no_wrap=True, justify="right")
    for arm in evaluation.arms:
        precision = arm.scores.precision_at
        table.add_row(
            arm.region.replace("_", " "),
            f"PCA {arm.dimensions}" if arm.pca else str(arm.dimensions),
            "weighted" if arm.weighted else "plain",
            f"{100 * arm.scores.map:.2f}",
            f"{arm.scores.anmrr:.4f}",
            f"{100 * precision[1]:.2f}",
            f"{100 * precision[10]:.2f}",
            style="bold" if arm is evaluation.main else None,
        )
    return table


def plot(evaluation: Evaluation) -> "Figure":
    """Mean average precision and ANMRR: of each arm above, of the main arm by class below, the lowest first."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- writes a font cache into the home when it is imported

    by_map = sorted(evaluation.per_class.items(), key=lambda item: (item[1].map, item[0]))[:MOST_BARS]
    heights = [0.3 * len(evaluation.arms) + 0.9, 0.24 * len(by_map) + 0.9]  # inches
    figure = Figure(figsize=(8, sum(heights)), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=heights)

    arms = [(arm.name, arm.scores) for arm in evaluation.arms]
    _bars(upper, arms, [MAIN if arm is evaluation.main else OTHER for arm in evaluation.arms])
    upper.set_title(f"Retrieval by arm ({len(evaluation.main.scores.queries)} queries)", **TITLE)

    _bars(lower, by_map, [MAIN] * len(by_map))
    lower.axvline(100 * evaluation.main.scores.map, color=INK, linewidth=0.8, linestyle=":")
    which = "By class" if len(by_map) == len(evaluation.per_class) else f"The {MOST_BARS} classes of lowest mAP"
    lower.set_title(f"{which}: {evaluation.main.name} (dotted: mean)", **TITLE)
    return figure


def _bars(axes: "Axes", values: Sequence[tuple[str, Scores]], colours: Sequence[str]) -> None:
    """Horizontal bars of mAP, the first on top, with mAP and ANMRR in figures at the right."""
    places = np.arange(len(values))
    axes.barh(places, [100 * scores.map for _, scores in values], color=colours, height=0.72)
    axes.set_yticks(places, [name for name, _ in values], fontsize=8, color=INK, parse_math=False)  # `$` is a character
    for place, (_, scores) in enumerate(values):
        axes.text(112, place, f"{100 * scores.map:.2f}", va="center", ha="right", fontsize=8, color=INK)
        axes.text(124, place, f"{scores.anmrr:.4f}", va="center", ha="right", fontsize=8, color=MUTED)
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
