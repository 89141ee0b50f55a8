"""Embeddings that a run wrote and did not commit before it ended: the next run commits them, and describes the rest.

What a kill costs is then what actors had in their hands, whatever the committer was waiting for. The other way, to let
no more be written than one commit holds, would make every actor wait for a slow store, and would still lose a commit's
worth. A row says itself what it is valid for (image id, etag, bundle), so it does not matter who wrote it, or when.
"""

import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import fsspec
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
from rsir_core.storage.filesystem import names_in

CONCURRENT_READS: Final = 16  # each mostly waits for its store
_OURS: Final = re.compile(r"part-[0-9a-f]{32}\.parquet")  # as `write_rows` calls them

log = logging.getLogger(__name__)


def leftovers(index: Index, wanted: pa.Table, bundle: str) -> pa.Table:
    """Find uncommitted rows: columns `image_id`, `etag` and `file` of what is in the table's folder and in no version.

    Args:
        index: where they are.
        wanted: keys of rows (columns `image_id`, `etag`); others are left where they lie, until `vacuum`.
        bundle: fingerprint of that which described them.
    """
    names = _uncommitted(index) if len(wanted) else []
    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        found = list(pool.map(partial(_keys_in, index, bundle=bundle), names))
    table = pa.concat_tables([KEYS.empty_table(), *found]).unify_dictionaries()
    return first_of(semi(table, wanted))


def take_over(writer: IndexWriter, left: pa.Table) -> None:
    """Commit the rows of `leftovers`."""
    if len(left):
        writer.commit("embeddings", list(_files_of(writer.index, left)), "append")


def _files_of(index: Index, left: pa.Table) -> Iterator[WrittenFile]:
    """Yield files that hold exactly the rows of `leftovers`: those that are there, or new ones with a part of them."""
    fs, root = fsspec.core.url_to_fs(index.table_uri("embeddings"))
    left = left.set_column(2, FILE, left[FILE].cast(pa.string()))
    for name in left[FILE].unique().to_pylist():
        part = left.filter(pc.equal(left[FILE], name))
        with fs.open(f"{root}/{name}") as file:
            count, size = pq.ParquetFile(file).metadata.num_rows, file.size
        if count == len(part):
            yield WrittenFile(name, size, count)
        else:
            rows = pa.concat_tables(stored_rows(index, part, schemas.EMBEDDINGS.names))
            yield write_rows(index.uri, "embeddings", rows)


def _uncommitted(index: Index) -> list[str]:
    """List names of files that no version of the table has, or had: those that it let go of are kept until `vacuum`."""
    there = set(names_in(index.table_uri("embeddings")))
    if index.has_table("embeddings"):
        table = index.open_table("embeddings")
        let_go = table.vacuum(0, dry_run=True, enforce_retention_duration=False)
        there -= {file.name for file in files_of(table)} | {unquote(name) for name in let_go}
    return sorted(name for name in there if _OURS.fullmatch(name))


def _keys_in(index: Index, name: str, bundle: str) -> pa.Table:
    """Read the keys of one file's rows that the bundle described; schema `embedding_files.KEYS`."""
    try:
        table = _read(index, name)
    except (pa.ArrowInvalid, OSError) as error:  # a disk that lost its power can have a file's name without its content
        log.warning("%s of %s was not committed and cannot be read; it is left: %s", name, index.uri, error)
        return KEYS.empty_table()
    table = table.filter(pc.equal(table[schemas.BUNDLE], bundle)).select(KEY)
    return table.append_column(FILE, pa.repeat(name, len(table))).cast(KEYS)


def _read(index: Index, name: str) -> Any:
    fs, root = fsspec.core.url_to_fs(index.table_uri("embeddings"))
    with pq.ParquetFile(f"{root}/{name}", filesystem=fs) as file:
        return file.read([*KEY, schemas.BUNDLE])
