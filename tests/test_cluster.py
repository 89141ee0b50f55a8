"""What the jobs share of Ray: taking what a dataset yields."""

import threading

import pyarrow as pa
import pytest
import ray.data

from jobs.cluster import rows_of, tables_of

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
