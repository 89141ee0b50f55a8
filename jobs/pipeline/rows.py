"""Fetch what a Ray Data pipeline makes, as it comes."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset


def tables_of(dataset: Dataset, at_least: int = 1) -> Iterator[pa.Table]:
    """Yield the tables of a dataset as they come; the calling thread fetches them, and the iterator's end ends it.

    Ray's own iterators prefetch in background threads, which survive when a loop ends by an error. After `joined` has
    disconnected, the first of them that touches Ray ends this process before the job can report the error (Ray 2.60:
    "The core worker has already been shutdown ... The process will exit").

    Args:
        dataset: of Arrow tables.
        at_least: least number of rows per table, except the last.
    """
    gathered: list[pa.Table] = []
    for bundle in dataset.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            table: pa.Table = ray.get(entry.ref)
            if len(table):
                gathered.append(table)
            if sum(map(len, gathered)) >= at_least:
                yield pa.concat_tables(gathered)
                gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def rows_of(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset as they come, see `tables_of`."""
    for table in tables_of(dataset):
        yield from table.to_pylist()
