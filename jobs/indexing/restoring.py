"""`jobs.index --versions` and `--restore`: list an index's versions and publish an older one again, without Ray."""

import logging
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.indexing.options import IndexConfig
from jobs.indexing.run_report import RunReport
from rsir_core.index.index import Index
from rsir_core.index.lease import Lease
from rsir_core.index.no_match import put_no_match_threshold
from rsir_core.index.versions import Version, restoration_of, versions_of
from rsir_core.index.writer import IndexWriter

log = logging.getLogger(__name__)


def list_versions(config: IndexConfig) -> dict[str, Any]:
    """Return the versions of an index as the job's summary; prints a table unless JSON is asked for."""
    found = versions_of(Index(config.index))
    if not config.as_json:
        _print(found)
    return {"index": config.index, "version": found[0].version, "versions": [version._asdict() for version in found]}


def restore_version(config: IndexConfig, version: int) -> dict[str, Any]:
    """Publish an older version again, as a new one, with its PCA and its no-match threshold.

    The next ordinary run makes the index match the archive again, whatever was restored.

    Raises:
        TableError: the version does not exist, or is no longer complete.
        LeaseError: another run is changing the index.
    """
    began, index = time.monotonic(), Index(config.index)
    with Lease.take(index.uri) as lease, RunReport(index, config) as report:
        report.begin("restore")
        writer = IndexWriter(index, lease)
        before, found = index.version(), restoration_of(index, version)
        if found.added or found.removed:
            writer.commit("features", found.added, "append", found.removed)
        after = index.version()
        if after == before:
            log.info("version %d has the files of version %d already; nothing was changed", before, version)
        elif found.no_match is not None:
            put_no_match_threshold(writer, after, found.no_match)
    return {
        "restored": version,
        "rows": sum(file.row_count for file in index.feature_files()),
        "seconds": round(time.monotonic() - began, 1),
        "version": after,
    }


def _print(versions: list[Version]) -> None:
    table = Table("version", "time", "rows", "run", "bundle", "PCA", "readable")
    for found in versions:
        cells = (found.version, found.time, found.rows, found.run, _short(found.bundle), _short(found.pca))
        words = ["–" if cell is None else str(cell) for cell in cells]
        table.add_row(*words, "yes" if found.readable else "no, vacuumed")
    Console(markup=False, highlight=False).print(table)


def _short(fingerprint: str | None) -> str | None:
    return fingerprint and fingerprint[:12]
