"""One evaluation over the indexes of several seeds: means, deviations, and what must be alike."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.evaluating.evaluate import evaluate, measure
from jobs.evaluating.options import EvaluateConfig
from rsir_core.errors import ConfigError
from tests.support.made_up import CLASSES, ROOT, write_index, write_split

SEEDS = ("0", "1", "2")
FIGURES = ("map", "anmrr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index and a split of each seed, and one that was made otherwise."""
    folder = tmp_path_factory.mktemp("seeds")
    for seed in (*SEEDS, "odd"):
        (folder / seed).mkdir()
        image_ids = [f"{c}/{i}.jpg" for c in CLASSES for i in range(8)]
        write_index(folder / seed, image_ids, seed=len(seed) + ord(seed[0]), tau=0.7 if seed == "odd" else 0.5)
        tests = {f"{ROOT}/{c}/{i}.jpg": c for c in CLASSES for i in range(6)}
        write_split(folder / seed / "split.csv", tests, {f"{ROOT}/river/7.jpg": "river"})
    return folder


def config_of(folder: Path, report: Path, seed: str, **more: Any) -> EvaluateConfig:
    index, split = (str(folder / seed / name) for name in ("index", "split.csv"))
    return EvaluateConfig(index=index, split=split, report=str(report), arms="key_region", **more)


def score(folder: Path, report: Path, seed: str, **more: Any) -> dict[str, Any]:
    """What metrics.json would say; tables, plots and page are not made."""
    metrics: dict[str, Any] = json.loads(json.dumps(measure(config_of(folder, report, seed, **more))[0].metrics()))
    return metrics


@pytest.mark.slow
def test_figures_are_means_with_deviations_over_seeds(folder: Path, tmp_path: Path) -> None:
    evaluate(config_of(folder, tmp_path, "{seed}", seeds="0, 1,2"))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    alone = [score(folder, tmp_path / seed, seed) for seed in SEEDS]

    def check(told: dict[str, Any], of_seed: Callable[[dict[str, Any]], Any], names: tuple[str, ...]) -> None:
        for name in names:
            values = [of_seed(found)[name] for found in alone]
            assert len(set(values)) > 1
            assert told[name] == pytest.approx(np.mean(values), abs=1e-12)
            assert told[f"{name}_sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
            assert f"{name}_sd" not in of_seed(alone[0])

    check(metrics, lambda found: found, (*FIGURES, "accuracy"))
    for i, arm in enumerate(metrics["arms"]):
        check(arm, lambda found, i=i: found["arms"][i], FIGURES)  # type: ignore[misc]
        curves = [found["arms"][i]["precision_at_recall"]["0.5"] for found in alone]
        assert arm["precision_at_recall"]["0.5"] == pytest.approx(np.mean(curves), abs=1e-12)
    for label, told in metrics["per_class"].items():
        check(told, lambda found, label=label: found["per_class"][label], FIGURES)  # type: ignore[misc]
    kept = (*FIGURES, "accuracy", "queries", "database", "unseen", "no_match", "calibration")
    assert metrics["seeds"] == [
        {"seed": seed, **{name: found[name] for name in kept}} for seed, found in zip(SEEDS, alone, strict=True)
    ]
    assert metrics["calibration"]["ece"] == pytest.approx(np.mean([f["calibration"]["ece"] for f in alone]), abs=1e-12)
    assert [metrics["queries"], metrics["database"]] == [18, 18]
    (*_, main, _) = csv.DictReader((tmp_path / "arms.csv").read_text().splitlines())
    assert (float(main["map"]), float(main["map_sd"])) == (metrics["map"], metrics["map_sd"])
    page = (tmp_path / "report.html").read_text()
    assert "3: figures are means" in page and f"± {100 * metrics['map_sd']:.2f}" in page


def test_what_differs_by_seed_is_listed_by_seed_and_what_does_not_is_said_once(folder: Path, tmp_path: Path) -> None:
    protocol = score(folder, tmp_path, "{seed}", seeds="0,1,2")["protocol"]
    for name, file in (("index", "index"), ("split", "split.csv")):
        assert protocol[name] == [str(folder / seed / file) for seed in SEEDS]
    assert len(set(protocol["pca"])) == 3
    assert (protocol["tau"], protocol["ties"]) == (0.5, "smaller image id first")


@pytest.mark.slow
def test_classes_that_are_not_in_all_seeds(folder: Path, tmp_path: Path) -> None:
    """Of a small class, chance may leave a seed one query, or none."""
    small = {"0": CLASSES, "1": CLASSES[1:], "2": CLASSES}
    for seed, classes in small.items():
        shutil.copytree(folder / seed, tmp_path / seed)
        tests = {f"{ROOT}/{c}/{i}.jpg": c for c in classes for i in range(1 if (seed, c) == ("2", CLASSES[0]) else 6)}
        (tmp_path / seed / "split.csv").unlink()
        write_split(tmp_path / seed / "split.csv", tests, {f"{ROOT}/river/7.jpg": "river"})
    for seeds, first in (("0,1,2", "0"), ("1,2,0", "1")):
        report = tmp_path / f"from {first}"
        evaluate(config_of(tmp_path, report, "{seed}", seeds=seeds))
        metrics = json.loads((report / "metrics.json").read_text())
        assert list(metrics["per_class"]) == sorted(CLASSES)
        assert metrics["per_class"][CLASSES[0]]["map"] == score(tmp_path, report, "0")["per_class"][CLASSES[0]]["map"]
        with (report / "per_class.csv").open() as file:
            lines = {line["label"]: line for line in csv.DictReader(file)}
        assert [bool(lines[name]["map_sd"]) for name in CLASSES] == [False, *(len(CLASSES) - 1) * [True]]
        with (report / "confusion.csv").open() as file:
            assert next(csv.reader(file)) == ["query", *sorted(CLASSES)]


def test_one_seed_has_no_deviation(folder: Path, tmp_path: Path) -> None:
    metrics, alone = score(folder, tmp_path / "a", "{seed}", seeds="1"), score(folder, tmp_path / "b", "1")
    assert metrics == alone
    assert not [name for name in metrics if name.endswith("_sd")]


@pytest.mark.parametrize(("seed", "seeds"), [("0", "0,1"), ("{seed}", None), ("{seed}", " ,")])
def test_seeds_and_their_place_in_the_uri_go_together(
    folder: Path, tmp_path: Path, seed: str, seeds: str | None
) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        score(folder, tmp_path / "report", seed, seeds=seeds)
    assert not (tmp_path / "report").exists()


def test_indexes_that_were_made_otherwise_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\bodd\b"):
        score(folder, tmp_path, "{seed}", seeds="0,odd")
    assert not list(tmp_path.iterdir())
