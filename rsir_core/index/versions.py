"""Versions of an index: list them with their runs and models, and find what restores an older one."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from rsir_core import schemas
from rsir_core.errors import TableError
from rsir_core.index.delta import TableFile, WrittenFile, sized_files_of
from rsir_core.index.index import Index
from rsir_core.index.no_match import NoMatchThreshold, get_no_match_threshold, has_no_match_threshold
from rsir_core.storage.filesystem import get_file, names_in

CONCURRENT_READS: Final = 16  # each mostly waits for its store


class Version(NamedTuple):
    """Hold a published version of an index.

    Attributes:
        version: its number.
        time: of its commit, ISO 8601 in UTC.
        rows: number of images; None: unknown, because files of unknown row counts are gone.
        run: name of the report, in `runs/`, of the run that made it; None: the report is gone.
        bundle: fingerprint of the model bundle; None: its files are gone.
        pca: fingerprint of the PCA; None likewise.
        readable: whether all of its files and its PCA still exist.
    """

    version: int
    time: str
    rows: int | None
    run: str | None
    bundle: str | None
    pca: str | None
    readable: bool


class Restoration(NamedTuple):
    """Hold what restores an older version: files of `features` to add to and remove from the newest version.

    Attributes:
        added: files of the older version that the newest lacks.
        removed: files of the newest version that the older lacks.
        no_match: the older version's no-match threshold; None: it has none.
    """

    added: list[WrittenFile]
    removed: list[TableFile]
    no_match: NoMatchThreshold | None


def versions_of(index: Index) -> list[Version]:
    """List the published versions of an index, the newest first.

    Raises:
        TableError: nothing is published there.
    """
    newest = index.version()
    there, runs = _files_there(index), dict(_runs_by_version(index))
    history = index.open_table("features").history()
    times = {int(commit["version"]): int(commit["timestamp"]) for commit in history}
    found = []
    for number in range(newest, 0, -1):
        if number in times:
            time = datetime.fromtimestamp(times[number] / 1000, UTC).isoformat(timespec="seconds")
            found.append(_version(index, number, time, runs.get(number), there))
    return found


def restoration_of(index: Index, version: int) -> Restoration:
    """Find what restores an older version.

    Raises:
        TableError: the version does not exist, is no longer readable, or its PCA or bundle is missing.
    """
    newest = index.version()
    if not 0 < version <= newest:
        raise TableError(f"{index.uri} has no version {version}; it has 1 to {newest} (see --versions)")
    wanted = index.open_table("features", version) if version < newest else None
    if wanted is None:
        return Restoration([], [], None)
    files = sized_files_of(wanted)
    if lost := sorted({file.name for file in files} - _files_there(index)):
        readable = ", ".join(str(found.version) for found in versions_of(index) if found.readable)
        raise TableError(
            f"version {version} of {index.uri} has lost {len(lost)} of {len(files)} files to --vacuum; these can be "
            f"restored: {readable}"
        )
    for bundle, pca in index.models(version):
        index.bundle_settings(bundle)
        index.pca(pca)
    now = index.feature_files()
    kept = {file.name for file in files} & {file.name for file in now}
    added, removed = [file for file in files if file.name not in kept], [file for file in now if file.name not in kept]
    return Restoration(added, removed, _no_match(index, version))


def _no_match(index: Index, version: int) -> NoMatchThreshold | None:
    models = index.models(version)
    if len(models) != 1 or not has_no_match_threshold(index, version):
        return None
    ((bundle, pca),) = models
    return get_no_match_threshold(index, version, bundle, pca)


def _version(index: Index, number: int, time: str, run: str | None, there: set[str]) -> Version:
    files = index.table_files("features", number)
    counts = [file.row_count for file in files]
    count = None if min(counts, default=0) < 0 else sum(counts)
    if not there.issuperset(file.name for file in files):
        return Version(number, time, count, run, None, None, False)
    filled = next((file for file in files if file.row_count), None)
    if filled is None:
        return Version(number, time, count, run, None, None, True)
    row = index.first_row(filled).select([schemas.BUNDLE, schemas.PCA]).to_pylist()[0]
    return Version(number, time, count, run, row[schemas.BUNDLE], row[schemas.PCA], index.has_pca(row[schemas.PCA]))


def _files_there(index: Index) -> set[str]:
    """List the file names in the folder of `features`."""
    return set(names_in(index.table_uri("features")))


def _runs_by_version(index: Index) -> Iterator[tuple[int, str]]:
    """Yield each version that a reported run made, with the run's name."""
    folder = f"{index.uri}/runs"
    names = [name for name in names_in(folder) if name.endswith(".json")]
    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        contents: list[dict[str, Any]] = list(pool.map(lambda name: json.loads(get_file(f"{folder}/{name}")), names))
    for name, content in zip(names, contents, strict=True):
        for version in range(content["version_before"] + 1, content["version_after"] + 1):
            yield version, name.removesuffix(".json")
