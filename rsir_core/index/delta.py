"""Delta tables by their URI: versions, their files, and commits that are made for one version or not at all."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction

from rsir_core.errors import ConflictError
from rsir_core.storage.filesystem import not_written

Mode = Literal["append", "overwrite"]
# How long the log tells when a file was removed, which a vacuum goes by: as long as one may be asked to keep versions.
REMEMBERED: Final = {"delta.deletedFileRetentionDuration": "interval 30 days"}
ONTO_THIS: Final = CommitProperties(max_commit_retries=0)  # onto the version as read, not onto what others make of it


class WrittenFile(NamedTuple):
    """A Parquet file of a table that is not committed yet: nobody sees it."""

    name: str
    size: int
    row_count: int


class TableFile(NamedTuple):
    """A file of a version of a table."""

    name: str  # its path below the table
    row_count: int  # -1: who wrote it did not say


def files_of(table: DeltaTable) -> list[TableFile]:
    """List the files of a table's version, by name."""
    return [TableFile(file.name, file.row_count) for file in sized_files_of(table)]


def sized_files_of(table: DeltaTable) -> list[WrittenFile]:
    """List the files of a table's version as they were committed, by name; -1 rows: who wrote one did not say."""
    actions = pa.table(table.get_add_actions(flatten=True))
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    found = zip(*columns, strict=True)
    return sorted(WrittenFile(unquote(path), size, -1 if count is None else count) for path, size, count in found)


def table_at(uri: str, schema: pa.Schema, version: int | None) -> DeltaTable:
    """Open a table to change, made where there is none (at version 0).

    Raises:
        ConflictError: it is not at the version any more.
        StorageError: it cannot be opened, or made.
    """
    try:
        table = DeltaTable.create(uri, schema, mode="ignore", configuration=REMEMBERED)
    except (OSError, DeltaError) as error:
        raise not_written(uri, error) from error
    if version not in (None, table.version()):
        raise ConflictError(_conflict(uri, version))
    return table


def commit_files(table: DeltaTable, files: Sequence[WrittenFile], mode: Mode, removed: Sequence[TableFile]) -> int:
    """Make written files visible, and others go, in the version after the table's.

    Raises:
        ConflictError: somebody else has made that one.
    """
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [
        AddAction(f.name, f.size, {}, now, data_change=True, stats=json.dumps({"numRecords": f.row_count}))
        for f in files
    ]
    actions += [RemoveAction(file.name, True, now) for file in removed]
    return changed(
        table,
        lambda: table.create_write_transaction(actions, mode, table.schema(), commit_properties=ONTO_THIS),
        files,
    )


def changed(table: DeltaTable, change: Callable[[], Any], files: Sequence[WrittenFile] = ()) -> int:
    """Make a change with `ONTO_THIS`, and return the version after it.

    Args:
        table: as it was read.
        change: what changes it.
        files: what it adds, by which a commit is known that the store took and then lost its answer to.

    Raises:
        ConflictError: somebody else has made that version.
        StorageError: the store does not take it; then nothing is visible.
    """
    version = int(table.version())
    try:
        change()
    except CommitFailedError as error:
        there = {file.name for file in files_of(DeltaTable(table.table_uri))}
        if not files or {file.name for file in files} - there:
            raise ConflictError(_conflict(table.table_uri, version)) from error
    except (OSError, DeltaError) as error:
        raise not_written(table.table_uri, error) from error
    return version + 1


def _conflict(uri: str, version: int | None) -> str:
    return f"{uri} was changed by somebody else after version {version}; this change was not committed; run it again"
