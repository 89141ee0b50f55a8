"""The figures that stand above the tables of the report: for each section, fixed captions with a figure each."""

from collections.abc import Mapping
from typing import Final

from rsir_core.evaluation.arms import Arm
from rsir_core.evaluation.evaluation import Evaluation, Spread
from rsir_core.evaluation.paper import FIGURE_5, TABLE_4
from rsir_core.evaluation.plots import confusion_shares
from rsir_core.evaluation.tables import PaperTable, Tables
from rsir_core.models.frozen import FROZEN

MOST_CONFUSED: Final = 8
PERFECT: Final = 99.95  # % mAP, from which 100.0 is printed
Figures = list[tuple[str, str]]  # caption, figure


def subject(evaluation: Evaluation) -> Figures:
    """List what was asked of what."""
    run, main = evaluation.runs[0], evaluation.main
    variation, (_, vectors, distance) = main.variation, evaluation.words(main)
    seeds, detector = len(evaluation.runs), run.protocol.get("detector")
    found = [
        ("queries", f"{len(evaluation.of(main)[0].queries):,}"),
        ("other images that each is ranked against", f"{len(run.labels) - 1:,}"),
        ("classes", f"{len(set(run.labels))}"),
        ("backbone", f"{'frozen ' if variation.peer == FROZEN else ''}{variation.backbone}"),
        ("vectors", vectors),
        ("distance", distance),
    ]
    if variation.tau == 1:
        found.append(("region", "the whole image"))
    else:
        found.append(("region", f"key region, {variation.tau:g} of height and width"))
        found.append(("centred on", f"the object that {detector} finds" if detector else "the image's centre"))
    if seeds > 1:
        found.append(("seeds", f"{seeds}: figures are means ± standard deviations"))
    trained_on = [(run.protocol.get("images_trained_on") or {}).get("own") or 0 for run in evaluation.runs]
    if run.protocol.get("classes") == 0:
        found.append(("training images among them", "none: nothing was trained"))
    elif str(run.protocol.get("images", "")).startswith("all"):
        found.append(("training images among them", "all, as no split file was given: the figures flatter"))
    elif max(trained_on):
        found.append(("training images among them", f"{max(trained_on):,}: the figures flatter"))
    return found


def findings(evaluation: Evaluation, tables: Mapping[str, PaperTable | None]) -> dict[str, Figures]:
    """List the figures of each section of the page whose figures are of arms, by its name."""
    return {
        "table5": _table5(evaluation) if tables["table5"] else [],
        "classes": _classes(evaluation),
        "table3": _best(tables["table3"]),
        "figure4": _best(tables["figure4"]),
        "gallery": _gallery(evaluation),
        "baseline": _baseline(evaluation) if tables["baseline"] else [],
    }


def confused(evaluation: Evaluation) -> tuple[float, list[tuple[str, str, float]]]:
    """Compute how much of the first ranks the query's own class fills, and which others fill most.

    Returns:
        The share, mean over classes; and the label of the query, the label found and its share of the first ranks, of
        the pairs that are mixed up most.
    """
    names, share = confusion_shares(evaluation)
    pairs = [(a, b, float(share[i, j])) for i, a in enumerate(names) for j, b in enumerate(names) if i != j]
    worst = sorted(pairs, key=lambda pair: -pair[2])[:MOST_CONFUSED]
    return float(share.diagonal().mean()), [pair for pair in worst if pair[2] > 0]


def _points(evaluation: Evaluation, before: Arm, after: Arm) -> str:
    """Format the difference of mAP in points, paired by seed."""
    pairs = zip(evaluation.of(before), evaluation.of(after), strict=True)
    gain = Spread.of([100 * (b.map - a.map) for a, b in pairs])
    return f"{gain.mean:+.2f}" if gain.sd is None else f"{gain.mean:+.2f} ± {gain.sd:.2f}"


def _table5(evaluation: Evaluation) -> Figures:
    main = evaluation.main
    plain, pca = (Arm(main.variation, k, "plain") for k in (None, main.components))
    return [
        ("dimensions before and after PCA", f"{evaluation.dimensions(plain):,}, {evaluation.dimensions(main)}"),
        (
            f"points of mAP gained by PCA{' and averaging' if evaluation.is_averaged(pca) else ''}",
            _points(evaluation, plain, pca),
        ),
        ("points of mAP gained by weighting the distance with class probabilities", _points(evaluation, pca, main)),
    ]


def _classes(evaluation: Evaluation) -> Figures:
    scores = {label: 100 * found.map.mean for label, found in evaluation.per_class(evaluation.main).items()}
    imperfect = sorted((map_, label) for label, map_ in scores.items() if map_ < PERFECT)
    found = [(f"classes of at least {PERFECT} % mAP", f"{len(scores) - len(imperfect)} of {len(scores)}")]
    if imperfect:
        found.append(("classes of lowest mAP", ", ".join(f"{label} ({map_:.1f} %)" for map_, label in imperfect[:3])))
    if Tables(evaluation).comparable:
        gaps = [map_ - TABLE_4[label][1].map for label, map_ in scores.items()]
        found.append(("classes ahead of the paper's key regions", f"{sum(gap > 0.005 for gap in gaps)}"))
        found.append(("classes behind them", f"{sum(gap < -0.005 for gap in gaps)}"))
    return found


def _best(table: PaperTable | None) -> Figures:
    if table is None:
        return []
    found = []
    for group in ("plain", "weighted"):
        rows = [(cells[f"{group}_map"].mean, row) for row, cells in table.rows if f"{group}_map" in cells]
        if rows:
            best, row = max(rows)
            found.append((f"highest mAP, {table.groups[group]}", f"{100 * best:.2f} % at {table.first} = {row}"))
    return found


def _gallery(evaluation: Evaluation) -> Figures:
    strips = [strip for run in evaluation.runs for strip in run.strips]
    by_way: dict[str, list[bool]] = {}
    by_label: dict[tuple[str, str], list[int]] = {}
    for strip in strips:
        by_way.setdefault(strip.way, []).extend(strip.right)
        by_label.setdefault((strip.label, strip.way), []).append(sum(strip.right))
    found = [(f"right results of all seeds, {way}", f"{sum(right)} of {len(right)}") for way, right in by_way.items()]
    for label, (whole, method) in FIGURE_5.items() if Tables(evaluation).comparable else ():
        ours = {way: counts for (of_label, way), counts in by_label.items() if of_label == label}
        found += [(f"right of ten for {label}, {way}", f"{sum(n) / len(n):g}") for way, n in ours.items()]
        if ours:
            found.append((f"right of ten for {label}, the paper's whole image and method", f"{whole}, {method}"))
    return found


def _baseline(evaluation: Evaluation) -> Figures:
    frozen = [arm for arm in evaluation.arms if arm.variation.peer == FROZEN]
    best = max(frozen, key=lambda arm: evaluation.map(arm).mean)
    return [
        (f"highest mAP without fine-tuning ({evaluation.words(best)[1]})", f"{100 * evaluation.map(best).mean:.2f} %"),
        ("points of mAP that the method gains", _points(evaluation, best, evaluation.main)),
    ]
