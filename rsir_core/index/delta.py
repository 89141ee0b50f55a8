"""Delta tables: list the files of a version, and commit on top of one known version or not at all."""

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
# How long the log keeps the time of a file's removal, which vacuum relies on: as long as versions can be kept.
RETENTION: Final = {"delta.deletedFileRetentionDuration": "interval 30 days"}
ONTO_THIS: Final = CommitProperties(max_commit_retries=0)  # onto the version that was read, never a later one


class WrittenFile(NamedTuple):
    """Hold a written Parquet file that is not committed yet, so that no reader sees it."""

    name: str
    size: int
    row_count: int


class TableFile(NamedTuple):
    """Hold a file of a table's version."""

    name: str  # path below the table
    row_count: int  # -1: unknown


def files_of(table: DeltaTable) -> list[TableFile]:
    """List the files of a table's version, by name."""
    return [TableFile(file.name, file.row_count) for file in sized_files_of(table)]


def sized_files_of(table: DeltaTable) -> list[WrittenFile]:
    """List the files of a table's version with their sizes, by name; a row count of -1 means unknown."""
    actions = pa.table(table.get_add_actions(flatten=True))
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    found = zip(*columns, strict=True)
    return sorted(WrittenFile(unquote(path), size, -1 if count is None else count) for path, size, count in found)


def table_at(uri: str, schema: pa.Schema, version: int | None) -> DeltaTable:
    """Open a table for a change; a missing table is created at version 0.

    Raises:
        ConflictError: the table is no longer at `version`.
        StorageError: the table cannot be opened or created.
    """
    try:
        table = DeltaTable.create(uri, schema, mode="ignore", configuration=RETENTION)
    except (OSError, DeltaError) as error:
        raise not_written(uri, error) from error
    if version not in (None, table.version()):
        raise ConflictError(_conflict(uri, version))
    return table


def commit_files(table: DeltaTable, files: Sequence[WrittenFile], mode: Mode, removed: Sequence[TableFile]) -> int:
    """Add written files and remove others in the version after the table's.

    Raises:
        ConflictError: another writer has committed that version.
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
    """Apply a change made with `ONTO_THIS`, and return the version after it.

    Args:
        table: the table as it was read.
        change: makes the change.
        files: files that it adds; they reveal a commit that succeeded although the store's answer was lost.

    Raises:
        ConflictError: another writer has committed that version.
        StorageError: the store refuses or fails; then nothing becomes visible.
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
    return f"{uri} was changed by another writer after version {version}; this change was not committed; run it again"
