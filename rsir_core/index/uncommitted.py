"""Recover embeddings that a killed run wrote but did not commit: the next run commits them and describes the rest.

So a kill costs only what actors held in memory, whatever the committer was waiting for. The alternative, to let actors
write no more than one commit holds, would make all of them wait for a slow store, and would still lose a commit's
worth. A row says what it is valid for (image id, etag, bundle), so it does not matter which run wrote it.
"""

import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rsir_core import schemas
from rsir_core.index.delta import WrittenFile, files_of
from rsir_core.index.diff import semi
from rsir_core.index.embedding_files import FILE, KEYS, first_of, stored_rows
from rsir_core.index.index import Index
from rsir_core.index.layout import KEY
from rsir_core.index.writer import IndexWriter, write_rows
from rsir_core.storage.filesystem import names_in, opened

CONCURRENT_READS: Final = 16  # each mostly waits for its store
_OURS: Final = re.compile(r"part-[0-9a-f]{32}\.parquet")  # as `write_rows` calls them

log = logging.getLogger(__name__)


def uncommitted_rows(index: Index, wanted: pa.Table, bundle: str) -> pa.Table:
    """Find rows in files that no version of `embeddings` has; columns `image_id`, `etag` and `file`.

    Args:
        index: the index.
        wanted: keys of rows (columns `image_id`, `etag`); other rows stay uncommitted until `vacuum` removes them.
        bundle: fingerprint of the bundle that described the rows.
    """
    names = _uncommitted(index) if len(wanted) else []
    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        found = list(pool.map(partial(_keys_in, index, bundle=bundle), names))
    table = pa.concat_tables([KEYS.empty_table(), *found]).unify_dictionaries()
    return first_of(semi(table, wanted))


def commit_rows(writer: IndexWriter, left: pa.Table) -> None:
    """Commit the rows that `uncommitted_rows` found."""
    if len(left):
        writer.commit("embeddings", list(_files_of(writer.index, left)), "append")


def _files_of(index: Index, left: pa.Table) -> Iterator[WrittenFile]:
    """Yield files that hold exactly these rows: existing ones, or new ones with part of an existing file."""
    fs, root = opened(index.table_uri("embeddings"))
    left = left.set_column(2, FILE, left[FILE].cast(pa.string()))
    for name in left[FILE].unique().to_pylist():
        part = left.filter(pc.equal(left[FILE], name))
        with fs.open(f"{root}/{name}") as file:
            count, size = pq.ParquetFile(file).metadata.num_rows, file.size
        if count == len(part):
            yield WrittenFile(name, size, count)
        else:
            rows = pa.concat_tables(stored_rows(index, part, schemas.EMBEDDINGS_WITH_OBJECTS.names))
            yield write_rows(index.uri, "embeddings", rows)


def _uncommitted(index: Index) -> list[str]:
    """List files that no version of the table has or had; removed files also stay until `vacuum`."""
    there = set(names_in(index.table_uri("embeddings")))
    if index.has_table("embeddings"):
        table = index.open_table("embeddings")
        removed = table.vacuum(0, dry_run=True, enforce_retention_duration=False)
        there -= {file.name for file in files_of(table)} | {unquote(name) for name in removed}
    return sorted(name for name in there if _OURS.fullmatch(name))


def _keys_in(index: Index, name: str, bundle: str) -> pa.Table:
    """Read the keys of a file's rows that the bundle described; schema `embedding_files.KEYS`."""
    try:
        table = _read(index, name)
    except (pa.ArrowInvalid, OSError) as error:  # after a power failure a file can exist without its content
        log.warning("%s of %s was not committed and cannot be read; it is ignored: %s", name, index.uri, error)
        return KEYS.empty_table()
    table = table.filter(pc.equal(table[schemas.BUNDLE], bundle)).select(KEY)
    return table.append_column(FILE, pa.repeat(name, len(table))).cast(KEYS)


def _read(index: Index, name: str) -> Any:
    fs, root = opened(index.table_uri("embeddings"))
    with pq.ParquetFile(f"{root}/{name}", filesystem=fs) as file:
        return file.read([*KEY, schemas.BUNDLE])
