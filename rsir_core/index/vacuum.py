"""Vacuum: remove files of old versions, uncommitted files, unused PCAs, and old thresholds and run reports."""

import math
import time
from collections.abc import Collection
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from rsir_core import schemas
from rsir_core.errors import RsirError, StorageError
from rsir_core.index.index import Index
from rsir_core.index.layout import SCHEMAS, no_match_uri
from rsir_core.index.versions import versions_of
from rsir_core.index.writer import IndexWriter
from rsir_core.storage.filesystem import one_line, opened


def vacuum(writer: IndexWriter, days: float) -> int:
    """Remove what no version of the last `days` days refers to; returns the number of files removed.

    Versions of that time stay readable; older ones may lose files. Tables get no new version, as their rows stay the
    same. It runs under the lease, because it also removes old files that another run has not committed yet.

    Raises:
        StorageError: the store fails, or refuses to list or to delete; what was removed stays so.
    """
    writer.check_lease()
    try:
        return _vacuum(writer.index, days)
    except RsirError:
        raise
    except Exception as error:  # each store has its own family of errors
        raise StorageError(
            f"old files of {writer.index.uri} cannot be removed ({type(error).__name__}: {one_line(error)}); check "
            "network and credentials, which must allow to delete; all else of the run is done"
        ) from error


def _vacuum(index: Index, days: float) -> int:
    removed = 0
    for name in SCHEMAS:
        if index.has_table(name):
            # The library only lists them; its own removal would add two versions.
            # A label that is being saved has a file before it has a commit, and holds no lease.
            kept = max(days, 1) if name == "labels" else days
            table, hours = index.open_table(name), math.ceil(24 * kept)
            gone = table.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
            fs, root = opened(index.table_uri(name), use_listings_cache=False)
            there = {f"{root}/{unquote(name)}" for name in gone} & set(fs.find(root))  # not those removed earlier
            removed += _remove(fs, there)
    before = time.time() - 86_400 * days
    return removed + _remove_pcas(index, before) + _remove_no_match(index, before) + _remove_reports(index, before)


def _remove_reports(index: Index, before: float) -> int:
    """Delete run reports older than `before` (Unix seconds), except those of versions that can still be read."""
    fs, old = _older(f"{index.uri}/runs", before)
    if old and index.table_version("features"):
        kept = {version.run for version in versions_of(index) if version.readable}
        old = [path for path in old if _stem(path) not in kept]
    return _remove(fs, old)


def _remove_no_match(index: Index, before: float) -> int:
    """Delete thresholds of versions that had already been superseded at `before` (Unix seconds)."""
    fs, old = _older(no_match_uri(index.uri), before)
    return _remove(fs, old[:-1])  # names are in the order of versions; the last was the newest at that time


def _remove_pcas(index: Index, before: float) -> int:
    """Delete PCAs that no remaining features file references and that are older than `before` (Unix seconds)."""
    fs, old = _older(f"{index.uri}/pca", before)
    used = _used_pcas(index) if old else ()
    return _remove(fs, [path for path in old if _stem(path) not in used])


def _older(folder: str, before: float) -> tuple[Any, list[str]]:
    """List the files of a folder, if it exists, that were modified before a time (Unix seconds), by name."""
    fs, root = opened(folder, use_listings_cache=False)
    if not fs.exists(root):
        return fs, []
    return fs, sorted(file["name"] for file in fs.ls(root, detail=True) if _modified(fs, file) < before)


def _remove(fs: Any, paths: Collection[str]) -> int:
    """Remove files; returns their number."""
    for path in paths:
        fs.rm_file(path)
    return len(paths)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _used_pcas(index: Index) -> set[str]:
    """List the PCAs of all versions that can still be read."""
    fs, root = opened(index.table_uri("features"), use_listings_cache=False)
    used: set[str] = set()
    for file in fs.find(root):
        if file.endswith(".parquet") and "/_delta_log/" not in file:
            column = pq.read_table(file, columns=[schemas.PCA], filesystem=fs)[schemas.PCA]
            used.update(column.unique().to_pylist())
    return used


def _modified(fs: Any, file: dict[str, Any]) -> float:
    """Return when a file was modified, in Unix seconds."""
    at: datetime | float = file["mtime"] if "mtime" in file else fs.modified(file["name"])
    return at.timestamp() if isinstance(at, datetime) else at
