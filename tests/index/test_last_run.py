"""The outcome of the newest run, as monitoring reads it."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.indexing.options import IndexConfig
from jobs.indexing.progress import Progress
from jobs.indexing.run_report import RunReport
from rsir_core.errors import ArchiveError
from rsir_core.index.index import Index
from rsir_core.index.last_run import LastRun, get_last_run, put_last_run
from tests.indexing.test_progress import written

DONE = LastRun(100.0, "done", None, {"corrupt": 2}, 1.5, 0.25, True)


def test_what_is_stored_is_read_again_with_the_time_of_the_last_run_that_was_done(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    assert get_last_run(index) is None
    put_last_run(index, LastRun(50.0, "ArchiveError: it is gone", None))
    assert get_last_run(index) == LastRun(50.0, "ArchiveError: it is gone", None)
    put_last_run(index, DONE)
    assert get_last_run(index) == replace(DONE, good_time=100.0)
    put_last_run(index, LastRun(200.0, "StorageError: refused", None))
    assert get_last_run(index) == LastRun(200.0, "StorageError: refused", 100.0)
    put_last_run(index, replace(DONE, time=300.0, outcome="done, with more failures than --max-failure-rate"))
    found = get_last_run(index)
    assert found is not None and found.good_time == 300.0


@pytest.mark.parametrize("content", [b"", b"[]", b'{"time": 1}'])
def test_a_file_that_something_else_wrote_is_no_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last_run.json").write_bytes(content)
    assert get_last_run(Index(str(tmp_path))) is None


def test_each_run_leaves_its_outcome_without_secrets(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    config = IndexConfig(archive="ftp://me:secret@host/images", models="m", index=str(tmp_path))
    with RunReport(index, config) as report:
        report.progress = Progress(3, 2)
        report.progress.take(written(1, 0, 1, corrupt="c/4 is bad"))
    good = get_last_run(index)
    assert good is not None and good.is_done and good.failed == {"corrupt": 1}
    with pytest.raises(ArchiveError), RunReport(index, config):
        raise ArchiveError(f"{config.archive} does not exist")
    bad = get_last_run(index)
    assert bad is not None and not bad.is_done
    assert bad.good_time == good.time < bad.time
    assert "secret" not in (tmp_path / "last_run.json").read_text()
