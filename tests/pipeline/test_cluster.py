"""What the jobs share of Ray: joining it, and taking what a dataset yields."""

import logging
import threading
from pathlib import Path

import pyarrow as pa
import pytest
import ray.data

from jobs.pipeline.cluster import joined
from jobs.pipeline.resources import Needs, provided
from jobs.pipeline.rows import rows_of, tables_of
from rsir_core.errors import ConfigError, ImageError, StorageError
from tests.quiet_runs import noise_in
from tests.support import forks

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def numbers(blocks: int) -> ray.data.Dataset:
    """0, 1, 2 … in blocks of four, made by tasks; every third is left out, and all of the last block."""
    table = pa.table({"number": range(4 * blocks)})
    made = ray.data.from_arrow([table.slice(start, 4) for start in range(0, len(table), 4)])

    def some(part: pa.Table) -> pa.Table:
        return part.filter(pa.array([n % 3 != 0 and n < 4 * (blocks - 1) for n in part["number"].to_pylist()]))

    return made.map_batches(some, batch_size=None, batch_format="pyarrow")


def test_a_loop_that_an_error_leaves_leaves_no_thread_that_could_touch_ray() -> None:
    list(rows_of(numbers(2)))  # what Ray starts once for all datasets is there
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        for row in rows_of(numbers(32)):
            _ = 1 // (row["number"] - row["number"])
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("at_least", [1, 5, 1000])
def test_each_row_comes_once_in_tables_as_large_as_asked(at_least: int) -> None:
    tables = list(tables_of(numbers(8), at_least))
    assert sorted(n for table in tables for n in table["number"].to_pylist()) == [n for n in range(28) if n % 3]
    assert all(len(table) >= at_least for table in tables[:-1]) and len(tables[-1])
    assert list(tables_of(numbers(1), at_least)) == []


def full(_: pa.Table) -> pa.Table:
    raise StorageError("the disk is full; make room")


@ray.remote(num_cpus=1)
def unreadable() -> None:
    raise ImageError("a.png is cut off", "decode", "corrupt")


def test_what_a_worker_raises_is_raised_here(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StorageError) as full_, joined(None):
        list(rows_of(ray.data.range(1).map_batches(full, batch_format="pyarrow")))
    with pytest.raises(ImageError) as unreadable_, joined(None):
        ray.get(unreadable.remote())
    assert (str(full_.value), str(unreadable_.value)) == ("the disk is full; make room", "a.png is cut off")
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(ZeroDivisionError, match="in <lambda>"), joined(None):
        ray.data.range(1).map(lambda row: {"x": 1 // row["id"]}).take_all()


# What a cluster lacks


def test_a_machine_without_what_is_needed_is_told_at_once() -> None:
    with (
        pytest.raises(ConfigError, match=r"--num-gpus 2 .*\b2 GPUs.*\b1\b"),
        provided(Needs("--num-gpus 2", 2), can_grow=False),
    ):
        pass
    with provided(Needs("--num-gpus 1", 1, 2), can_grow=False):
        pass


def test_a_cluster_that_grows_is_waited_for_in_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    class Growing(Needs):
        """As `Needs`, of a cluster that gets its second GPU after it was asked for three times."""

        asked = 0

        def lacking(self) -> str | None:
            Growing.asked += 1
            return super().lacking() if Growing.asked < 4 else None

    with provided(Growing("--num-gpus 2", 2), can_grow=True, every=0.01):
        while "has what" not in caplog.text:
            threading.Event().wait(0.01)
    assert caplog.text.count("waiting for the cluster to grow: --num-gpus 2 needs 2 GPUs of which there are 1") == 2


def test_gpus_that_a_local_ray_has_not_end_the_job_with_one_line(index: str, tmp_path: Path) -> None:
    command = ["jobs.query", "--queries", str(Path(index).parent / "archive"), "--index", index,
               "--out", str(tmp_path / "answers"), "--num-gpus", "1"]  # fmt: skip
    done = forks.run(command)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith(
        "query: --num-gpus 1 needs 1 GPUs of which there are 0 on this machine"
    )
    assert not (tmp_path / "answers").exists()


# What Ray says by itself


def test_workers_without_work_stay_for_as_long_as_the_job() -> None:
    """Those that end may crash, see `jobs.pipeline.cluster`; in a process of its own, as this one has a Ray."""
    done = forks.run(["tests.quiet_runs", "--do", "idle"])
    assert done.returncode == 0 and noise_in(done.stdout + done.stderr) == {}
