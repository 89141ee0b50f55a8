"""What an operator reads: counts, rates and shares add up; a run's report, in both forms."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.indexing.options import IndexConfig
from jobs.indexing.progress import Progress
from jobs.indexing.run_report import RunReport
from jobs.meter import WINDOW
from rsir_core.errors import ArchiveError, StorageError
from rsir_core.index.diff import make_plan
from rsir_core.index.drift import Drift, FeatureStatistics
from rsir_core.index.index import Index
from tests.index.test_tables import feature_rows, listed, store


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def written(count: int, began: float, ended: float, **failures: str) -> dict[str, Any]:
    failed = [
        {"uri": f"{kind}.jpg", "stage": "decode", "kind": kind, "message": text} for kind, text in failures.items()
    ]
    kinds = {"failures": json.dumps(failed * count)}
    return {
        "table": "failures" if failures else "embeddings", "row_count": count, "began": began, "ended": ended,
        "reading": 0.25 * (ended - began), "describing": 0.5 * (ended - began), "writing": 0.0, **kinds,
    }  # fmt: skip


def test_counts_rates_and_shares() -> None:
    clock = Clock()
    progress = Progress(1000, 2, clock)
    assert progress.meter.seconds_left == float("inf") and progress.rate == 0
    clock.now = 20  # actors started
    progress.take(written(90, began=100, ended=110))
    assert progress.meter.seconds_left == float("inf")  # from one file, with models to load before, no rate is known
    clock.now = 20.001
    progress.meter.mark(95)  # of another worker, at almost the same moment
    assert progress.meter.rate == 0 and progress.meter.seconds_left == float("inf")
    clock.now = 30
    progress.take(written(10, began=105, ended=120, corrupt="a.jpg is bad"))
    assert (progress.described, progress.failed, progress.done) == (90, 10, 100)
    assert progress.rate == 100 / 20
    assert progress.shares() == {"reading": 6.25 / 40, "describing": 12.5 / 40, "writing": 0.0}
    assert progress.meter.seconds_left == 900 / (10 / 10)
    for second in range(40, 400, 10):  # still at 1 image per second
        clock.now = second
        progress.take(written(10, began=120, ended=90 + second))
    assert progress.meter.seconds_left == pytest.approx(540 / 1.0, rel=0.05)
    clock.now += 10 * WINDOW
    progress.take(written(540, began=480, ended=490))
    assert progress.meter.seconds_left == 0
    assert "990 of 1000 described, 10 failed (10 corrupt)" in str(progress) and " 0 s left" in str(progress)


@pytest.fixture
def config(tmp_path: Path) -> IndexConfig:
    return IndexConfig(archive="ftp://me:secret@host/images?signature=secret", models="m", index=str(tmp_path))


def test_a_report_of_a_run(tmp_path: Path, config: IndexConfig) -> None:
    index = Index(str(tmp_path))
    store(index, "features", feature_rows(["a/1", "a/2", "b/3"]))
    listing = listed(**{"a/1": "1", "a/2": "2", "c/4": "1", "c/5": "1"})
    with RunReport(index, config) as report:
        report.begin("list and compare")
        report.planned(make_plan(index, listing, False))
        report.progress = Progress(3, 2)
        report.progress.take(written(2, 0, 1))
        report.progress.take(written(1, 0, 1, corrupt="c/4 is bad | really"))
        report.begin("publish")
        mixes = (FeatureStatistics.of(feature_rows(["a", "b"] * 50), 0.1) for _ in range(2))
        report.drift = Drift(*(replace(mix, error=error) for mix, error in zip(mixes, (10.0, 20.0), strict=True)))
        store(index, "features", feature_rows(["c/5"]))
    files = {file.suffix: file.read_text() for file in (tmp_path / "runs").iterdir()}
    told = json.loads(files[".json"])
    assert {n: told["plan"][n] for n in ("listed", "new", "changed", "gone")} == {
        "listed": 4, "new": 2, "changed": 1, "gone": 1
    }  # fmt: skip
    assert told["plan"]["to_describe"]["c/"] == {"count": 2, "example": "c/4"}
    assert told["plan"]["gone_from"] == {"b/": {"count": 1, "example": "b/3"}}
    assert (told["outcome"], told["version_before"], told["version_after"]) == ("done", 1, 2)
    assert told["failures"] == {"corrupt": {"count": 1, "example": "c/4 is bad | really"}}
    assert list(told["seconds_by_stage"]) == ["list and compare", "publish"]
    assert told["drift"]["error_ratio"] == 2 and told["drift"]["suggests_refit_pca"]
    assert told["config"]["archive"] == "ftp://host/images"
    assert "--refit-pca" in files[".md"] and "| corrupt | 1 | c/4 is bad \\| really |" in files[".md"]
    assert "secret" not in files[".md"] + files[".json"]


def test_a_report_of_a_run_that_failed(tmp_path: Path, config: IndexConfig) -> None:
    with pytest.raises(ArchiveError), RunReport(Index(str(tmp_path)), config) as report:
        report.begin("list and compare")
        raise ArchiveError(f"{config.archive} does not exist")
    (file,) = (tmp_path / "runs").glob("*.json")
    assert json.loads(file.read_text())["outcome"] == "ArchiveError: ftp://host/images does not exist"


def test_a_report_that_cannot_be_written_does_not_hide_why_the_run_failed(tmp_path: Path, config: IndexConfig) -> None:
    (tmp_path / "runs").write_text("no folder")
    with pytest.raises(ArchiveError, match="is gone"), RunReport(Index(str(tmp_path)), config):
        raise ArchiveError("the archive is gone")
    with pytest.raises(StorageError), RunReport(Index(str(tmp_path)), config):
        pass
