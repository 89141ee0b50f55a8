"""What the figures of an evaluation say, each table in a sentence or two that hold whatever came out."""

from collections.abc import Mapping, Sequence
from typing import Any

from rsir_core.evaluation.arms import Arm
from rsir_core.evaluation.evaluation import Evaluation, Spread
from rsir_core.evaluation.paper import FIGURE_5, TABLE_4
from rsir_core.evaluation.plots import confusion_shares
from rsir_core.evaluation.tables import PaperTable, Tables
from rsir_core.models.frozen import FROZEN
from rsir_core.search.exact import CONFIDENT

MOST_NAMED = 5  # classes in a sentence
MOST_CONFUSED = 8


def lead(evaluation: Evaluation) -> str:
    """Say what was asked of what."""
    run, main = evaluation.runs[0], evaluation.main
    variation = main.variation
    region = "the whole image" if variation.tau == 1 else f"key regions of {variation.tau:g} × height and width"
    queries, images = len(evaluation.of(main)[0].queries), len(run.labels)
    seeds = f" Mean ± standard deviation over {len(evaluation.runs)} seeds." if len(evaluation.runs) > 1 else ""
    detector = run.protocol.get("detector")
    centred = f", centred on what {detector} finds" if detector else ", centred on the image"
    backbone = f"frozen {variation.backbone}" if variation.peer == FROZEN else variation.backbone
    return (
        f"{queries:,} queries, each against the {images - 1:,} other images of {len(set(run.labels))} classes; "
        f"{backbone}, {region}{'' if variation.tau == 1 else centred}, {evaluation.words(main)[1]}, "
        f"{evaluation.words(main)[2]} distance.{seeds}{_trained_on([run.protocol for run in evaluation.runs])}"
    )


def _trained_on(protocols: Sequence[Mapping[str, Any]]) -> str:
    """Say that the figures flatter, where they do; empty where they do not, or nobody knows."""
    if str(protocols[0].get("images", "")).startswith("all"):
        return " Images that the models were trained on are among them, as no split file was given."
    most = max((protocol.get("images_trained_on") or {}).get("own") or 0 for protocol in protocols)
    which = "The models" if len(protocols) == 1 else "Models of a seed"
    return f" {which} were trained on {most:,} of them: the figures flatter." if most else ""


def findings(evaluation: Evaluation, tables: Mapping[str, PaperTable | None]) -> dict[str, str]:
    """Write a sentence for each part of the page, by its name; those of absent tables are empty."""
    also = {"unseen": _unseen, "no_match": _no_match, "calibration": _calibration, "duplicates": _duplicates}
    found = {name: evaluation.findings.get(name) for name in also}
    return {
        "table5": _table5(evaluation) if tables["table5"] else "",
        "classes": _classes(evaluation),
        "table3": _best(tables["table3"], "key region", "tau"),
        "figure4": _best(tables["figure4"], "feature", "K"),
        "confusion": _confusion(evaluation),
        "gallery": _gallery(evaluation),
        "baseline": _baseline(evaluation) if tables["baseline"] else "",
        **{name: say(told) if (told := found[name]) else "" for name, say in also.items()},
    }


def confused(evaluation: Evaluation) -> list[tuple[str, str, float]]:
    """List the pairs of labels that are mixed up most: the query's, the one found, and its share of the first ranks."""
    names, share = confusion_shares(evaluation)
    pairs = [(a, b, float(share[i, j])) for i, a in enumerate(names) for j, b in enumerate(names) if i != j]
    return [pair for pair in sorted(pairs, key=lambda pair: -pair[2])[:MOST_CONFUSED] if pair[2] > 0]


def _table5(evaluation: Evaluation) -> str:
    main = evaluation.main
    plain, pca = (Arm(main.variation, k, weighted=False) for k in (None, main.components))
    reduced, weighted = _points(evaluation, plain, pca), _points(evaluation, pca, main)
    before, after = evaluation.dimensions(plain), evaluation.dimensions(main)
    return (
        f"Reducing {before:,} dimensions to {after} by PCA brings {reduced} points of mAP, weighting "
        f"the distance by class probabilities another {weighted}."
    )


def _points(evaluation: Evaluation, before: Arm, after: Arm) -> str:
    """Format the difference of mAP in points, paired by seed."""
    pairs = zip(evaluation.of(before), evaluation.of(after), strict=True)
    gain = Spread.of([100 * (b.map - a.map) for a, b in pairs])
    return f"{gain.mean:+.2f}" if gain.sd is None else f"{gain.mean:+.2f} ± {gain.sd:.2f}"


def _classes(evaluation: Evaluation) -> str:
    scores = evaluation.per_class(evaluation.main)
    hardest = sorted(scores, key=lambda label: (scores[label].map.mean, label))[:3]
    perfect = sum(s.map.mean > 0.9995 for s in scores.values())
    text = (
        f"{perfect} of {len(scores)} classes are found all but perfectly (mAP 99.95 % or more). "
        f"Hardest: {', '.join(f'{label} ({100 * scores[label].map.mean:.1f} %)' for label in hardest)}."
    )
    if not Tables(evaluation).comparable:
        return text
    gaps = {label: 100 * s.map.mean - TABLE_4[label][1].map for label, s in scores.items()}
    behind = sorted((label for label in gaps if gaps[label] < -0.005), key=lambda label: gaps[label])
    named = [f"{label} ({100 * scores[label].map.mean:.1f} against {TABLE_4[label][1].map:g} %)" for label in behind]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    told = f" Behind the paper in {len(behind)}: {', '.join(named[:MOST_NAMED])}{more}." if behind else ""
    ahead = sum(gap > 0.005 for gap in gaps.values())
    return f"{text} Ahead of the paper's key regions in {ahead} of {len(gaps)} classes.{told}"


def _best(table: PaperTable | None, what: str, symbol: str) -> str:
    if table is None:
        return ""
    parts = []
    for group in ("plain", "weighted"):
        found = [(cells[f"{group}_map"].mean, heading) for heading, cells in table.rows if f"{group}_map" in cells]
        if found:
            best = max(found)
            parts.append(f"{table.groups[group]}: best at {symbol} = {best[1]} with {100 * best[0]:.2f} % mAP")
    used = "" if table.marked is None else f" The dotted line is the {what} that the index uses."
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}.{used}"


def _confusion(evaluation: Evaluation) -> str:
    names, share = confusion_shares(evaluation)
    right = sum(share[i, i] for i in range(len(names))) / len(names)
    return (
        "Of a class with NG other images, which classes fill the first NG ranks? "
        f"{100 * right:.1f} % of them are of the query's own class, mean over classes."
    )


def _gallery(evaluation: Evaluation) -> str:
    ways: dict[str, list[bool]] = {}
    for strip in (strip for run in evaluation.runs for strip in run.strips):
        ways.setdefault(strip.way, []).extend(strip.right)
    told = [f"“{way}” finds {sum(right)} of {len(right)}" for way, right in ways.items()]
    seeds = f"all {len(evaluation.runs)} seeds" if len(evaluation.runs) > 1 else "those shown"
    return (
        "Of the two classes of the paper's figure, where there are such, the median query by average precision; of the "
        "classes of lowest mAP a bad one, than which only a tenth of the class's queries score worse. Of the first "
        f"images of {seeds}, {', '.join(told)} right.{_beside_figure5(evaluation)}"
    )


def _beside_figure5(evaluation: Evaluation) -> str:
    """Compare the queries of the paper's two classes, of all seeds; empty where it is another archive."""
    if not Tables(evaluation).comparable:
        return ""
    told = []
    for label, (whole, method) in FIGURE_5.items():
        right: dict[str, list[int]] = {}
        for strip in (strip for run in evaluation.runs for strip in run.strips if strip.label == label):
            right.setdefault(strip.way, []).append(sum(strip.right))
        if not right:
            continue
        ours = " and ".join(f"{sum(counts) / len(counts):g} by “{way}”" for way, counts in right.items())
        told.append(f"of {label} {ours} (the paper: {whole} and {method})")
    seeds = ", means over the seeds" if len(evaluation.runs) > 1 else ""
    return f" Right among the first ten{seeds}: {'; '.join(told)}." if told else ""


def _baseline(evaluation: Evaluation) -> str:
    main = evaluation.main
    frozen = [arm for arm in evaluation.arms if arm.variation.peer == FROZEN]
    best = max(frozen, key=lambda arm: evaluation.map(arm).mean)
    return (
        f"{main.variation.backbone} as ImageNet has taught it, never fine-tuned, on whole images, reaches "
        f"{100 * evaluation.map(best).mean:.2f} % mAP at best ({evaluation.words(best)[1]}, plain); "
        f"the method {_points(evaluation, best, main)} points more."
    )


def _unseen(found: Mapping[str, Any]) -> str:
    text = f"{len(found['labels'])} of the labels are no class of the classifier: {', '.join(found['labels'])}. "
    if (scores := found["unseen"]) is None:
        return f"{text}No two of their images share one, so there is nothing to find."
    gain = {way: 100 * (scores[way]["map"] - scores["plain"]["map"]) for way in ("weighted", "auto")}
    return (
        f"{text}Ranked among themselves, the weights bring them {gain['weighted']:+.2f} points of mAP against the "
        f"plain distance, and auto, which weights only queries with a class of {100 * CONFIDENT:.0f} % or more "
        f"({100 * scores['sure']:.0f} % of these), {gain['auto']:+.2f}."
    )


def _no_match(found: Mapping[str, Any]) -> str:
    if found["threshold"] is None:
        return f"No threshold for “no match” can be promised: {found['queries']:.0f} queries are too few for it."
    unseen = found["unseen_told"]
    also = "" if unseen is None else f", and so are {100 * unseen:.1f} % of the images of classes never seen"
    return (
        f"A query is told so where the nearest image lies {found['threshold']:.2f} or farther away by the plain "
        f"distance: of queries whose class nothing was taken for, {100 * found['false_match_rate']:g} % then find a "
        f"match. With each class left out in turn, {100 * found['false_matches']:.1f} % of its images find one, as "
        f"others were taken for it. Of images whose class is there, {100 * found['told_wrongly']:.1f} % are told "
        f"so{also}."
    )


def _calibration(found: Mapping[str, Any]) -> str:
    temperature, raw = found["temperature"], 100 * found["ece_uncalibrated"]
    calibrated = f", and would be {raw:.1f} % without the temperature {temperature:.2f}."
    return (
        f"Of {found['images']:,} images the classifier is {100 * found['confidence']:.1f} % sure on average and "
        f"{100 * found['accuracy']:.1f} % right; the calibration error is {100 * found['ece']:.1f} %"
        f"{'. Its probabilities were not calibrated.' if temperature == 1 else calibrated}"
    )


def _duplicates(found: Mapping[str, Any]) -> str:
    pairs = found["identical"] + found["re_encoded"]
    unread = f" {found['unread']:,} that might be could not be read." if found["unread"] else ""
    if not pairs:
        return f"None of {found['images']:,} images is a picture that another one is too.{unread}"
    across = {
        None: "no split file says which of them the models were trained on",
        0: "none across the split: no query was trained on as another file",
    }.get(found["train_test"], f"{found['train_test']} across the split: a query that was trained on as another file")
    return (
        f"Pairs of one picture among {found['images']:,} images: {pairs:,}, of which {found['identical']:,} identical "
        f"pixel by pixel and {found['re_encoded']:,} saved again; {across}.{unread}"
    )
