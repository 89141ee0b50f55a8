"""The page stands alone, shows what was scored, and takes nobody's label for markup."""

import base64
import io
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from rsir_core.evaluation import paper
from rsir_core.evaluation.arms import ARM_SETS, ArmSet
from rsir_core.evaluation.evaluation import Evaluation
from rsir_core.evaluation.metrics import PRECISION_AT
from rsir_core.evaluation.report import csv_lines, write_report
from rsir_core.evaluation.report_page import PLOTS, render
from rsir_core.evaluation.tables import Tables
from tests.support.evaluations import UC_MERCED, some_evaluation
from tests.support.pictures import some_strip

pytestmark = pytest.mark.slow  # each draws the plots
EVERY: list[ArmSet] = list(ARM_SETS)
HOSTILE = ["<script>alert(1)</script>", '"><img src=//x onerror=alert(1)>', r"river & $\fo{rest"]
HARMLESS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "div", "span", "figure",
    "figcaption", "h1", "h2", "h3", "p", "b", "i", "br", "small", "code", "img", "ul", "li", "dl", "dt", "dd", "table",
    "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
SHOWN = {
    "src",
    "alt",
    "class",
    "style",
    "loading",
    "tabindex",
    "lang",
    "charset",
    "name",
    "content",
    "colspan",
    "rowspan",
}


class Parsed(HTMLParser):
    """A page's tags with their attributes, its pictures, its text, and its figures by caption."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._cells: dict[str, list[str]] = {"dt": [], "dd": []}
        self._open = ""
        self.feed(page)
        self.figures = dict(zip(self._cells["dt"], self._cells["dd"], strict=True))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag in self._cells:
            self._cells[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] != "style":
            self.text += data
        if self._open in self._cells:
            self._cells[self._open][-1] += data

    def of(self, tag: str, of_class: str = "") -> list[dict[str, str | None]]:
        """Attributes of those tags that have a class."""
        return [a for name, a in self.tags if name == tag and of_class in ["", *(a.get("class") or "").split()]]


def scores(value: float, queries: int = 6) -> dict[str, Any]:
    return {"queries": queries, "sure": 0.25, **{way: {"map": value, "anmrr": 1 - value} for way in ("plain", "auto")},
            "weighted": {"map": value - 0.125, "anmrr": 0.5}}  # fmt: skip


def some_findings(folder: Path, labels: list[str]) -> dict[str, Any]:
    ends = {"first": f"{labels[0]}.png", "second": f"{labels[1]}.png", "first_split": "train", "second_split": "test"}
    uris = {"first_uri": str(folder / "0.png"), "second_uri": str(folder / "1.png")}
    told = {"unseen_told": 0.75, "told_wrongly": 0.0625, "false_matches": 0.125}
    limits = {"threshold": 0.1, "agreeing_distance": 0.2}
    return {
        "duplicates": {
            "images": 9, "compared": 2, "unread": 0, "groups": 1, "identical": 1, "re_encoded": 0, "train_test": 1,
            "pairs": [{"kind": "identical", "difference": 0.0, **ends, **uris}],
        },
        "unseen": {
            "labels": labels[:1], "unseen": scores(0.5), "known": scores(0.875),
        },
        "no_match": {"false_match_rate": 0.01, "queries": 99, **limits, **told},
        "calibration": {
            "temperature": 0.5, "images": 9, "accuracy": 0.75, "confidence": 0.8, "ece": 0.05, "ece_uncalibrated": 0.2,
        },
    }  # fmt: skip


def with_everything(folder: Path, classes: list[str]) -> Evaluation:
    strips = [some_strip(folder, classes[0], [True, False], way) for way in ("whole image, plain", classes[1])]
    found = some_evaluation(EVERY, classes, (0, 1), findings=some_findings(folder, classes))
    runs = [replace(run, strips=strips, protocol={**run.protocol, "odd": classes[2]}) for run in found.runs]
    return replace(found, runs=runs)


def page_of(evaluation: Evaluation) -> str:
    """With empty plots, which take their time."""
    return render(evaluation, dict.fromkeys(PLOTS, b"<svg/>"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A whole report, of labels that try to be more than text."""
    folder = tmp_path_factory.mktemp("hostile")
    write_report(str(folder / "report"), with_everything(folder, HOSTILE))
    return (folder / "report" / "report.html").read_text()


@pytest.fixture(scope="module")
def merced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, str]:
    """Of the paper's classes, two seeds, all arms."""
    folder = tmp_path_factory.mktemp("merced")
    evaluation = with_everything(folder, UC_MERCED)
    return evaluation, page_of(evaluation)


def test_all_pictures_are_inside_and_nothing_else_is_asked_for(hostile: str) -> None:
    page = Parsed(hostile)
    pictures = page.of("img")
    kinds = []
    for picture in pictures:
        kind, _, data = str(picture["src"]).partition(";base64,")
        content = base64.b64decode(data, validate=True)
        kinds.append(kind)
        if kind == "data:image/svg+xml":
            assert ET.fromstring(content).tag.endswith("svg")
        else:
            Image.open(io.BytesIO(content)).verify()
    assert set(kinds) == {"data:image/svg+xml", "data:image/jpeg"}
    assert kinds.count("data:image/svg+xml") == 4  # table 3, figure 4, recall and precision, confusion
    assert kinds.count("data:image/jpeg") == 2 * 3 + 2  # two strips, and a pair of one picture
    assert all(picture["alt"] for picture in pictures)
    style = hostile[hostile.index("<style>") : hostile.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)


def test_labels_are_text_wherever_they_stand(hostile: str) -> None:
    page = Parsed(hostile)
    assert {name for name, _ in page.tags} <= HARMLESS
    assert {name for _, attributes in page.tags for name in attributes} <= SHOWN
    for label in HOSTILE:
        assert page.text.count(label) > 5
    assert not [label for label in HOSTILE[:2] if label in hostile]


def test_figures_behind_the_paper_s_are_red_and_no_others(merced: tuple[Evaluation, str]) -> None:
    evaluation, page = merced
    tables, behind = Tables(evaluation), 0
    rivals = {"table3": {"plain": "paper"}, "figure4": {"plain": "paper"}, "table5": {"ours": "paper"},
              "table4": {"key_region": "paper", "whole_plain": "paper_whole"}}  # fmt: skip
    for table in tables.all():
        for ours, theirs in rivals.get(table.name, {}).items():
            for _, cells in table.rows:
                if f"{ours}_map" in cells and f"{theirs}_map" in cells:
                    gaps = [cells[f"{ours}_{m}"].mean - cells[f"{theirs}_{m}"].mean for m in ("map", "anmrr")]
                    behind += (gaps[0] < -5e-5) + (gaps[1] > 5e-5)
    assert len(Parsed(page).of("td", "behind")) == behind > 20


def test_the_first_figures_are_the_main_arm_s_beside_the_paper_s(merced: tuple[Evaluation, str]) -> None:
    evaluation, page = merced
    precision, rank = evaluation.map(evaluation.main), evaluation.anmrr(evaluation.main)
    text = " ".join(Parsed(page[page.index("<main>") : page.index("<section>")]).text.split())
    assert f"{100 * precision.mean:.2f} % ± {100 * (precision.sd or 0):.2f} mean average precision" in text
    assert f"{rank.mean:.4f} ± {rank.sd:.4f} ANMRR" in text
    assert f"the paper: {paper.MAIN.map:.2f} %" in text and f"the paper: {paper.MAIN.anmrr:.4f}" in text


def test_the_papers_two_queries_are_set_beside_ours(merced: tuple[Evaluation, str]) -> None:
    evaluation, page = merced
    assert "right of ten" not in page
    strip = evaluation.runs[0].strips[0]
    ways = {"whole": [[True, False], [True, True]], "method": [[True, True]] * 2}  # by seed
    runs = [
        replace(run, strips=[strip._replace(label="beach", way=way, right=rights[i]) for way, rights in ways.items()])
        for i, run in enumerate(evaluation.runs)
    ]
    both = replace(evaluation, runs=runs)
    shown = Parsed(page_of(both)).figures
    assert shown["right of ten for beach, whole"] == "1.5" and shown["right of ten for beach, method"] == "2"
    assert shown["right of ten for beach, the paper's whole image and method"] == "5, 7"
    lines = csv_lines(both, both.metrics())["figure5"]
    assert [(line["seed"], line["way"], line["right"]) for line in lines] == [
        ("0", "whole", 1), ("0", "method", 2), ("1", "whole", 2), ("1", "method", 2),
    ]  # fmt: skip


def test_frames_of_the_gallery_are_those_of_its_strips(merced: tuple[Evaluation, str]) -> None:
    evaluation, html = merced
    page = Parsed(html)
    found = [a["class"] for a in page.of("figure") if a.get("class")]
    expected = [kind for strip in evaluation.runs[0].strips for kind in ("query", *strip.right)]
    assert found == [{True: "right", False: "wrong"}.get(kind, kind) for kind in expected]  # type: ignore[call-overload]
    assert "left:12.5%;top:0.0%;width:87.5%;height:100.0%" in {a.get("style") for a in page.of("span", "region")}
    assert {a.get("style") for a in page.of("span", "object")} == {"left:25.0%;top:50.0%;width:25.0%;height:33.3%"}


def test_findings_are_figures_with_captions(merced: tuple[Evaluation, str]) -> None:
    evaluation, page = merced
    found = Parsed(page)
    assert (
        found.figures.items()
        >= {
            "pairs, identical pixel by pixel": "1",
            "pairs, saved again": "0",
            "pairs of a training image and a query": "1",
            "points of mAP gained by the weights": "-12.50",
            "points of mAP gained by auto": "+0.00",
            "queries that auto weights: the nearest rows are probably of their class": "25.0 %",
            "threshold: unweighted distance of the nearest image": "0.10",
            "mean unweighted distance of its five nearest images": "0.20",
            "queries without a match that find one: as stated": "1.0 %",
            "the same, with each class left out in turn": "12.5 %",
            "queries with a match that are reported to have none": "6.2 %",
            "queries of classes never seen that are reported to have none": "75.0 %",
            "mean probability of the predicted class": "80.0 %",
            "expected calibration error": "5.0 %",
            "the same without the temperature": "20.0 %",
            "temperature (1: not calibrated)": "0.50",
        }.items()
    )
    assert "The split is that of the first seed, 0." in found.text
    assert json.dumps(evaluation.metrics())  # the same stands in metrics.json


def test_the_best_figures_are_those_of_the_tables(merced: tuple[Evaluation, str]) -> None:
    evaluation, page = merced
    found, tables = Parsed(page).figures, Tables(evaluation)
    for table in (tables.table3(), tables.figure4()):
        assert table is not None
        for group in ("plain", "weighted"):
            best = max((cells[f"{group}_map"].mean, row) for row, cells in table.rows)
            assert found[f"highest mAP, {table.groups[group]}"] == f"{100 * best[0]:.2f} % at {table.first} = {best[1]}"


@pytest.mark.parametrize(
    ("change", "caption", "figure"),
    [
        ({"duplicates": {"identical": 0, "pairs": [], "train_test": 0}}, "pairs of a training image and a query", "0"),
        ({"duplicates": {"train_test": None}}, "pairs of a training image and a query", "unknown"),
        ({"duplicates": {"unread": 3}}, "images that could not be compared", "3"),
        ({"no_match": {"threshold": None, "queries": 98}}, "threshold", "none: 98 queries are too few"),
        ({"no_match": {"threshold": None}}, "threshold", "none: too few images are assigned to other classes"),
        ({"no_match": {"unseen_told": None}}, "queries of classes never seen", "–"),
        ({"no_match": {"agreeing_distance": None}}, "mean unweighted distance of its five", "–"),
    ],
)
def test_figures_are_those_that_were_found(tmp_path: Path, change: dict[str, Any], caption: str, figure: str) -> None:
    some_strip(tmp_path, "river", [True])
    findings = some_findings(tmp_path, UC_MERCED)
    for name, more in change.items():
        findings[name] |= more
    found = Parsed(page_of(some_evaluation(["key_region"], findings=findings))).figures
    assert [value for name, value in found.items() if name.startswith(caption) and value.startswith(figure)]


def test_what_was_not_found_out_has_no_place_on_the_page() -> None:
    page = Parsed(page_of(some_evaluation(["key_region"])))
    for heading in ("What the figures rest on", "never seen", "baseline", "Figure 5", "Table 3", "the paper:"):
        assert heading not in page.text


def test_a_perfect_precision_is_told_where_it_is_less_than_1() -> None:
    evaluation = some_evaluation(["key_region"], seeds=(0, 1))
    counts = Counter(evaluation.runs[0].labels)
    assert {n - 1 for n in counts.values()} < set(range(1, 50))
    relevant_rows = [counts[label] - 1 for label in evaluation.runs[0].labels]
    told = [f"{100 * sum(min(NG, k) / k for NG in relevant_rows) / len(relevant_rows):.2f}" for k in PRECISION_AT]
    assert f"at most, as classes are small{''.join(told)}" in Parsed(page_of(evaluation)).text


def test_the_gallery_tells_of_all_seeds(tmp_path: Path) -> None:
    evaluation = some_evaluation(["key_region"], seeds=(3, 4))
    runs = [
        replace(run, strips=[some_strip(tmp_path, "river", right)])
        for run, right in zip(evaluation.runs, ([True, True], [True, False]), strict=True)
    ]
    text = " ".join(Parsed(page_of(replace(evaluation, runs=runs))).text.split())
    assert re.search("right results of all seeds, .*3 of 4", text) and "Shown are those of the first seed, 3;" in text


def test_a_seed_whose_models_have_seen_its_queries_is_told() -> None:
    evaluation = some_evaluation(["key_region"], seeds=(0, 1))
    counts = ({"own": 0}, {"own": 521})
    runs = [
        replace(run, protocol={**run.protocol, "images_trained_on": count})
        for run, count in zip(evaluation.runs, counts, strict=True)
    ]
    figures = Parsed(page_of(replace(evaluation, runs=runs))).figures
    assert figures["training images among them"].startswith("521")


@pytest.mark.slow
def test_the_paper_stands_beside_ours_on_a_desktop(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page_of(some_evaluation(EVERY, UC_MERCED, seeds=(0, 1))))
    size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get((tmp_path / "report.html").as_uri())
    wide = "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert [table.text[:80] for table in chromium.execute_script(wide)] == []
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# Images load once they are scrolled to. Such a load may reject a decode() that waits already, so none is asked for.
IS_SHOWN = """
const [image, done] = arguments;
const tell = () => done(image.naturalWidth > 0);
image.addEventListener("error", tell);
if (image.complete) tell(); else image.addEventListener("load", tell);
"""


@pytest.mark.slow
def test_a_browser_shows_all_of_it_at_any_width(chromium: Any, hostile: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(hostile)
    chromium.get((tmp_path / "report.html").as_uri())
    chromium.get_log("browser")  # of earlier tests
    size = {"height": 900, "deviceScaleFactor": 1, "mobile": False}
    for width in (1280, 390):
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, **size})
        inner, needed, shown = chromium.execute_script(
            "const page = document.documentElement; return [innerWidth, page.scrollWidth, page.clientWidth]"
        )
        assert (inner, needed) == (width, shown)  # a scroll bar at the side, none below
        for picture in chromium.find_elements("css selector", "img"):
            chromium.execute_script("arguments[0].scrollIntoView()", picture)
            assert chromium.execute_async_script(IS_SHOWN, picture)
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    asked = "return performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith('data:'))"
    assert chromium.execute_script(asked) == []
    assert chromium.get_log("browser") == []
