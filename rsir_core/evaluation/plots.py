"""The plots of an evaluation. Matplotlib writes a font cache into the home when it is imported, so each imports it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rsir_core.evaluation.arms import Arm
from rsir_core.evaluation.evaluation import Evaluation, Spread
from rsir_core.evaluation.gallery import INK, MUTED
from rsir_core.evaluation.metrics import RECALL_LEVELS
from rsir_core.evaluation.tables import PaperTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS: Final = 60  # labels in a plot; of more, those of lowest mAP
MOST_CONFUSED: Final = 30  # labels of the matrix; of more, those of lowest mAP
MAIN, OTHER, PLAIN, PAPER = "#1b6ca8", "#b8c9d9", "#5aa9a0", "#c2703d"
SERIES: Final = {"weighted": MAIN, "plain": PLAIN, "paper": PAPER}
CURVES: Final = ("#8a63a6", PAPER, PLAIN, MAIN)  # the main arm's last
TITLE: Final[dict[str, Any]] = {"loc": "left", "fontsize": 10, "color": INK}


def plot_arms(evaluation: Evaluation) -> "Figure":
    """Plot mean average precision and ANMRR: of each arm above, of the main arm by class below, the lowest first."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    main = evaluation.main
    per_class = evaluation.per_class(main)
    by_map = sorted(per_class.items(), key=lambda item: (item[1].map.mean, item[0]))[:MOST_BARS]
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


def plot_table(table: PaperTable) -> "Figure":
    """Plot a table whose rows are sizes: mAP and ANMRR of each group of columns over them, with deviations."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.4, 4.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    places = np.arange(len(table.rows))
    for axes, measure, factor in ((upper, "map", 100), (lower, "anmrr", 1)):
        for group, heading in table.groups.items():
            key = f"{group}_{measure}"
            found = [(place, cells[key]) for place, (_, cells) in zip(places, table.rows, strict=True) if key in cells]
            axes.errorbar(
                [place for place, _ in found],
                [factor * figure_.mean for _, figure_ in found],
                [factor * (figure_.sd or 0) for _, figure_ in found],
                color=SERIES[group], label=heading, marker="o", markersize=4, linewidth=1.6, capsize=2,
                linestyle="--" if group == "paper" else "-",
            )  # fmt: skip
        if table.marked is not None:
            axes.axvline(table.marked, color=MUTED, linewidth=0.8, linestyle=":")
        axes.set_ylabel("mAP %" if measure == "map" else "ANMRR", fontsize=9, color=INK)
        _plain(axes)
    lower.set_xticks(places, [heading for heading, _ in table.rows])
    lower.set_xlabel(table.first, fontsize=9, color=INK)
    upper.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def compared(evaluation: Evaluation) -> list[Arm]:
    """List the arms that are shown as curves, where they were scored: from the Euclidean whole image to the main."""
    main = evaluation.main
    whole = main.variation._replace(tau=1.0)
    plain = [
        Arm(whole, None, "plain"),
        *(Arm(main.variation, k, "plain") for k in (None, main.components)),
    ]
    return [arm for arm in dict.fromkeys((*plain, main)) if arm in evaluation.arms]


def plot_recall_precision(evaluation: Evaluation) -> "Figure":
    """Plot interpolated precision over recall, mean over queries and seeds."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    axes = figure.subplots()
    arms = compared(evaluation)
    colours = dict(zip(arms, CURVES[-len(arms) :], strict=True))
    for arm in arms:
        main = arm == evaluation.main
        axes.plot(
            RECALL_LEVELS, 100 * evaluation.recall_precision(arm), label=evaluation.name(arm),
            marker="o", markersize=3.5, color=colours[arm], linewidth=2.2 if main else 1.4, zorder=3 if main else 2,
        )  # fmt: skip
    axes.set_xlabel("recall", fontsize=9, color=INK)
    axes.set_ylabel("precision %", fontsize=9, color=INK)
    _plain(axes)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def plot_confusion(evaluation: Evaluation) -> "Figure":
    """Plot which classes fill the first NG ranks of which queries, in % of each row; the correct share is grey."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    names, share = confusion_shares(evaluation)
    if len(names) > MOST_CONFUSED:
        chosen = np.sort(np.argsort(np.diag(share), kind="stable")[:MOST_CONFUSED])
        names, share = [names[i] for i in chosen], share[np.ix_(chosen, chosen)]
    wrong = share - np.diag(np.diag(share))
    side = 0.27 * len(names) + 2.2  # inches
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.where(wrong > 0, wrong, np.nan), cmap="Reds", vmin=0, vmax=max(0.1, float(wrong.max())))
    for i, j in np.argwhere(share >= 0.005):
        strong = i != j and wrong[i, j] > 0.6 * max(0.1, wrong.max())
        colour = MUTED if i == j else "white" if strong else INK
        axes.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8, color=INK, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=8, color=INK, parse_math=False)
    axes.set_xlabel("found in the first ranks", fontsize=9, color=INK)
    axes.set_ylabel("query", fontsize=9, color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def confusion_shares(evaluation: Evaluation) -> tuple[list[str], "np.typing.NDArray[np.float64]"]:
    """Compute the share of first ranks that each label fills, for each label of queries; over all seeds."""
    names = sorted({label for run in evaluation.runs for label in run.labels})
    total = np.zeros((len(names), len(names)), np.int64)
    for run in evaluation.runs:
        places = [names.index(label) for label in sorted(set(run.labels))]
        total[np.ix_(places, places)] += run.confusion
    asked = np.flatnonzero(total.sum(axis=1))
    share = total[np.ix_(asked, asked)] / total[asked].sum(axis=1, keepdims=True)
    return [names[i] for i in asked], share


def _bars(axes: "Axes", values: Sequence[tuple[str, Spread, Spread]], colours: Sequence[str]) -> None:
    """Draw horizontal bars of mAP, the first on top, with mAP and ANMRR in figures at the right."""
    places = np.arange(len(values))
    axes.barh(places, [100 * precision.mean for _, precision, _ in values], color=colours, height=0.72)
    axes.set_yticks(places, [name for name, _, _ in values], fontsize=8, color=INK, parse_math=False)
    for place, (_, precision, rank) in enumerate(values):
        axes.text(112, place, f"{100 * precision.mean:.2f}", va="center", ha="right", fontsize=8, color=INK)
        axes.text(124, place, f"{rank.mean:.4f}", va="center", ha="right", fontsize=8, color=MUTED)
    axes.text(112, -0.75, "mAP %", ha="right", fontsize=8, color=INK)
    axes.text(124, -0.75, "ANMRR", ha="right", fontsize=8, color=MUTED)
    axes.set(xlim=(0, 124), ylim=(len(values) - 0.4, -0.6), xticks=range(0, 101, 20))
    axes.tick_params(axis="x", labelsize=8, colors=MUTED)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)


def _plain(axes: "Axes") -> None:
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#cbd2d9")
