import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from rich.console import Console

from rsir_core.evaluation.arms import ARM_SETS, Arm, IndexSetup, Variation, main_arm, plan_arms
from rsir_core.evaluation.evaluation import Evaluation, Run, Scored
from rsir_core.evaluation.findings import findings
from rsir_core.evaluation.metrics import Scores
from rsir_core.evaluation.plots import plot_arms
from rsir_core.evaluation.report import arms_table, csv_lines, write_report
from tests.support.evaluations import some_evaluation

PNG = b"\x89PNG\r\n\x1a\n"


OWN = IndexSetup(Variation(0.9, "resnet50"), components=19, most=1280)


def scores(average_precision: list[float], nmrr: list[float]) -> Scores:
    q = len(nmrr)
    curve = np.linspace(1, 0.5, 11)[None].repeat(q, axis=0)
    return Scores(np.arange(q), np.array(average_precision), np.array(nmrr), np.full((q, 5), 0.5), curve, excluded=1)


def one_run(labels: list[str], main: Scores, seed: str | None = None) -> Run:
    other = scores([0.1] * len(main.queries), [0.9] * len(main.queries))
    arms = plan_arms(["key_region", "whole_image"], OWN)
    scored = {arm: Scored(arm.components or 1280, main if arm == OWN.main else other) for arm in arms}
    confusion = np.eye(len(set(labels)), dtype=np.int64)
    return Run(seed, scored, labels, 0.75, confusion, [], {"ties": "smaller image id first", "index": f"index {seed}"})


def evaluation(labels: list[str], main: Scores) -> Evaluation:
    return Evaluation([one_run(labels, main)], OWN.main)


@pytest.fixture
def small() -> Evaluation:
    # Four images; the last is the only one of its label and no query.
    return evaluation(["river", r"$\fo{rest$", "river", "lake"], scores([1, 0.5, 0.6], [0, 0.25, 0.5]))


def test_metrics_are_those_of_the_main_arm(small: Evaluation) -> None:
    metrics = small.metrics()
    assert metrics["map"] == pytest.approx(0.7)
    assert metrics["anmrr"] == pytest.approx(0.25)
    assert (metrics["queries"], metrics["database"], metrics["accuracy"]) == (3, 4, 0.75)
    assert metrics["per_class"] == {
        "$\\fo{rest$": {"map": 0.5, "anmrr": 0.25, "queries": 1},
        "river": {"map": 0.8, "anmrr": 0.25, "queries": 2},
    }
    assert metrics["protocol"] == {
        "main_arm": "key region, PCA 19, weighted",
        "excluded_queries": 1,
        "ties": "smaller image id first",
        "index": "index None",
    }
    assert len(metrics["arms"]) == 9
    assert metrics["arms"][3] == {
        "region": "key_region",
        "tau": 0.9,
        "backbone": "resnet50",
        "bundle": None,
        "centre": None,
        "views": None,
        "pca": True,
        "distance": "weighted",
        "weighted": True,
        "dimensions": 19,
        "map": metrics["map"],
        "anmrr": metrics["anmrr"],
        "precision_at": {"1": 0.5, "5": 0.5, "10": 0.5, "20": 0.5, "50": 0.5},
        "precision_at_recall": {f"{i / 10:g}": pytest.approx(1 - i / 20) for i in range(11)},
    }


def test_without_key_regions_the_whole_image_is_the_main_arm(small: Evaluation) -> None:
    arms = plan_arms(["whole_image"], OWN)
    assert [arm.variation.region for arm in arms] == ["whole_image"] * 4
    assert main_arm(arms, OWN) == Arm(OWN.whole, 19, "weighted")
    assert main_arm(small.arms, OWN) == OWN.main


def test_a_perfect_class_is_none_of_the_lowest() -> None:
    labels = ["lake", "lake", "river", "river"]
    tables = dict.fromkeys(("table3", "figure4", "table5", "baseline"))
    for last, lowest in ((0.5, "river (75.0 %)"), (1, None)):
        found = dict(findings(evaluation(labels, scores([1, 1, 1, last], [0] * 4)), tables)["classes"])
        assert found["classes of at least 99.95 % mAP"] == ("2 of 2" if lowest is None else "1 of 2")
        assert found.get("classes of lowest mAP") == lowest


def test_a_class_may_be_called_query() -> None:
    found = evaluation(["query", "query", "sea", "sea"], scores([1, 0.5, 0.6, 1], [0, 0.25, 0.5, 0]))
    assert [line["query"] for line in csv_lines(found, found.metrics())["confusion"]] == ["query", "sea"]


@pytest.mark.slow
def test_the_files_hold_the_same_numbers(small: Evaluation, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "report"
    write_report(str(folder), small)
    write_report(f"{folder}/", small)  # again, over the first
    tables = {"arms", "per_class", "recall_precision", "confusion", "table4", "table5"}
    plots = {f"{name}.{kind}" for name in ("retrieval", "recall_precision", "confusion") for kind in ("png", "svg")}
    assert {p.name for p in folder.iterdir()} == {
        "metrics.json", "report.html", *(f"{name}.csv" for name in tables), *plots,
    }  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.pop("files") == sorted(p.name for p in folder.iterdir() if p.name != "metrics.json")
    assert metrics == small.metrics()
    arms = list(csv.DictReader((folder / "arms.csv").read_text().splitlines()))
    assert [float(a["map"]) for a in arms] == [small.map(arm).mean for arm in small.arms]
    assert [float(a["p@10"]) for a in arms] == [0.5] * 9
    per_class = list(csv.DictReader((folder / "per_class.csv").read_text().splitlines()))
    assert [(c["label"], float(c["map"])) for c in per_class] == [("$\\fo{rest$", 0.5), ("river", pytest.approx(0.8))]
    assert (folder / "retrieval.png").read_bytes().startswith(PNG)
    assert "</svg>" in (folder / "retrieval.svg").read_text()


@pytest.mark.slow
def test_what_another_evaluation_has_left_goes_and_what_is_not_of_one_stays(small: Evaluation, tmp_path: Path) -> None:
    write_report(str(tmp_path), some_evaluation(["table3", "figure4"]))
    (tmp_path / "notes.txt").write_text("mine")
    assert {"table3.csv", "table3.png", "figure4.svg"} <= {p.name for p in tmp_path.iterdir()}
    write_report(str(tmp_path), small)
    listed = json.loads((tmp_path / "metrics.json").read_text())["files"]
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.json", "notes.txt", *listed}
    (tmp_path / "metrics.json").write_text('{"files": ["../outside.txt", "notes.txt/"]}')  # not of ours
    outside = tmp_path.parent / "outside.txt"
    outside.write_text("kept")
    write_report(str(tmp_path), small)
    assert outside.exists() and (tmp_path / "notes.txt").exists()


@pytest.mark.slow
def test_labels_that_the_plots_font_lacks_are_text_in_svgs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    for number, (classes, is_text) in enumerate(((["森林", "港口"], True), (["forêt", "port"], False))):
        caplog.clear()
        folder = tmp_path / str(number)
        write_report(str(folder), some_evaluation(["key_region"], classes))
        assert ("<text" in (folder / "confusion.svg").read_text()) == is_text
        assert (classes[0] in (folder / "confusion.svg").read_text()) >= is_text
        assert ("font of the plots lacks" in caplog.text) == is_text
    assert not [found for found in recwarn if "Glyph" in str(found.message)]


def test_the_plot_tells_every_arm_and_class_with_its_figures(small: Evaluation) -> None:
    upper, lower = plot_arms(small).axes
    assert [t.get_text() for t in upper.get_yticklabels()] == [small.name(arm) for arm in small.arms]
    assert [t.get_text() for t in lower.get_yticklabels()] == ["$\\fo{rest$", "river"]
    assert [bar.get_width() for bar in lower.patches if isinstance(bar, Rectangle)] == pytest.approx([50, 80])
    assert {"50.00", "80.00", "0.2500"} <= {t.get_text() for t in lower.texts}


def test_of_very_many_classes_the_plot_shows_the_lowest() -> None:
    values = np.linspace(0, 1, 200)
    lower = plot_arms(evaluation([f"{i:03}" for i in range(200)], scores(values.tolist(), [0.0] * 200))).axes[1]
    assert [t.get_text() for t in lower.get_yticklabels()] == [f"{i:03}" for i in range(60)]
    assert "lowest" in lower.get_title(loc="left")


def test_the_table_fits_a_terminal_of_80_columns(small: Evaluation) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(arms_table(small))
    text = console.export_text()
    main = ["key", "region", "PCA", "19", "weighted", "70.00", "0.2500", "50.00", "50.00"]
    assert main in [line.split() for line in text.splitlines()]
    assert "…" not in text


def test_every_figure_is_in_the_table_whatever_the_arms_are_called() -> None:
    own = OWN._replace(peers=(Variation(1.0, "a_backbone_of_a_very_long_name", "peers/long"),))
    every = some_evaluation(list(ARM_SETS), own=own)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(arms_table(every))
    text = console.export_text()
    assert "…" not in text
    for arm in every.arms:
        assert f"{100 * every.map(arm).mean:.2f}" in text and f"{every.anmrr(arm).mean:.4f}" in text
