"""Labels of images in named collections: an append-only table, of which the newest row of each image counts.

Whoever labels needs no lease: Delta Lake lets any number of writers append, and each row stays. A label is taken back
by a row without one.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from rsir_core import schemas
from rsir_core.errors import QueryError, ReadOnlyError
from rsir_core.index.delta import RETENTION
from rsir_core.index.index import Index
from rsir_core.storage.filesystem import not_written, one_line

# No control characters, no space at either end; a collection's name is a part of an address, so it has no slash.
NAME: Final = r"^[^\x00-\x20\x7f/.]([^\x00-\x1f\x7f/]*[^\x00-\x20\x7f/])?$"
LABEL: Final = r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$"
LONGEST: Final = 64  # characters of a name, and of a label
RETRIES: Final = 100  # of a commit; each time another writer was first
CREATED_AT_ONCE: Final = 10  # tries to append; each time another writer has just created the table
SMALL_FILES: Final = 32  # each request to label leaves a file; from so many on they are merged
_REFUSED: Final = re.compile("permission|denied|forbidden|read-only|readonly", re.IGNORECASE)


class Collection(NamedTuple):
    """Summarise a collection.

    Attributes:
        name: its name.
        labels: the number of images of each label.
        time: when it was last changed, UTC.
    """

    name: str
    labels: dict[str, int]
    time: datetime


def check_names(collection: str, labels: Mapping[str, str | None]) -> None:
    """Check the name of a collection and labels, see `NAME` and `LABEL`.

    Raises:
        QueryError: one of them is not allowed.
    """
    if len(collection) > LONGEST or not re.fullmatch(NAME, collection):
        raise QueryError(
            f"collection {collection!r:.100}: a name has 1 to {LONGEST} characters, no slash, no dot at its beginning, "
            "and no space at either end"
        )
    for label in set(labels.values()) - {None}:
        if len(str(label)) > LONGEST or not re.fullmatch(LABEL, str(label)):
            raise QueryError(
                f"label {label!r:.100}: it has 1 to {LONGEST} characters on one line, and no space at either end"
            )


def save_labels(
    index: Index, collection: str, labels: Mapping[str, str | None], uris: Mapping[str, str], by: str | None
) -> None:
    """Append the labels of images to a collection, in one atomic commit, whoever else appends at the same time.

    Args:
        index: the index, which must have the images.
        collection: name; a new one begins a collection.
        labels: by image id; None withdraws the image's label.
        uris: of these images, by image id.
        by: who labels; None: unknown.

    Raises:
        QueryError: a name or a label is not allowed.
        ReadOnlyError: the index may not be written to.
        StorageError: the store fails; then nothing is saved.
    """
    check_names(collection, labels)
    if not labels:
        return
    now, n = datetime.now(UTC), len(labels)
    columns = [[collection] * n, list(labels), [uris[i] for i in labels], list(labels.values()), [by] * n, [now] * n]
    uri = index.table_uri("labels")
    try:
        _create(uri)
        rows = pa.table([pa.array(column, field.type) for column, field in zip(columns, schemas.LABELS, strict=True)],
                        schemas.LABELS)  # fmt: skip
        _append(uri, rows)
    except (OSError, DeltaError) as error:
        if is_refusal(error):
            raise ReadOnlyError(
                f"{uri} cannot be written, so labels cannot be saved ({one_line(error)}); let this process write to "
                "that folder, or use a copy of the index"
            ) from error
        raise not_written(uri, error) from error


def read_labels(index: Index, collection: str) -> pa.Table:
    """Read the labels that images of a collection have now, schema `schemas.LABELS`, by image id.

    No rows if there is no such collection.
    """
    newest = _newest(index.rows("labels", schemas.LABELS.names, pc.field(schemas.COLLECTION) == collection))
    return newest.filter(pc.is_valid(newest[schemas.LABEL])).sort_by(schemas.IMAGE_ID)


def read_collections(index: Index) -> list[Collection]:
    """List the collections that have labels, by name."""
    names = [schemas.COLLECTION, schemas.IMAGE_ID, schemas.LABEL, schemas.TIME]
    newest = _newest(index.rows("labels", names))
    times: dict[str, datetime] = dict(_grouped(newest, [schemas.COLLECTION], "max"))
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    of_label = newest.filter(pc.is_valid(newest[schemas.LABEL])).sort_by(schemas.LABEL)
    for name, label, count in _grouped(of_label, [schemas.COLLECTION, schemas.LABEL], "count"):
        counts[name][label] = count
    return [Collection(name, counts[name], times[name]) for name in sorted(counts)]


def merge_label_files(index: Index) -> None:
    """Merge the small files of `labels`, if there are many; rows that are appended meanwhile are kept."""
    if index.has_table("labels") and len(index.table_files("labels")) >= SMALL_FILES:
        table = index.open_table("labels")
        try:
            table.optimize.compact()
        except CommitFailedError:
            return  # somebody else has merged them
        except (OSError, DeltaError) as error:
            raise not_written(table.table_uri, error) from error


def is_refusal(error: Exception) -> bool:
    """Tell whether a failure to write is one of the store's permissions, which trying again does not mend."""
    return _REFUSED.search(str(error)) is not None


def _newest(rows: pa.Table) -> pa.Table:
    """Keep the newest row of each image of a collection; of those of the same time, one that withdraws."""
    key = [schemas.COLLECTION, schemas.IMAGE_ID]
    rows = rows.sort_by([(schemas.TIME, "ascending"), (schemas.LABEL, "ascending")])  # null comes last
    others = [name for name in rows.column_names if name not in key]
    last = rows.group_by(key, use_threads=False).aggregate(
        [(name, "last", pc.ScalarAggregateOptions(skip_nulls=False)) for name in others]
    )
    return last.rename_columns([name.removesuffix("_last") for name in last.column_names]).select(rows.column_names)


def _grouped(rows: pa.Table, key: list[str], function: str) -> list[tuple[Any, ...]]:
    found = rows.group_by(key, use_threads=False).aggregate([(schemas.TIME, function)])
    return list(zip(*(found[name].to_pylist() for name in [*key, f"{schemas.TIME}_{function}"]), strict=True))


def _append(uri: str, rows: pa.Table) -> None:
    """Append rows in one commit; one that fails has saved nothing, so it may be tried again."""
    for rest in reversed(range(CREATED_AT_ONCE)):
        try:
            write_deltalake(uri, rows, mode="append", commit_properties=CommitProperties(max_commit_retries=RETRIES))
        except CommitFailedError as error:
            if not rest or is_refusal(error):
                raise
        else:
            return


def _create(uri: str) -> None:
    """Create the table unless it exists, whoever else does so at the same time."""
    try:
        DeltaTable.create(uri, schemas.LABELS, mode="ignore", configuration=RETENTION)
    except (OSError, DeltaError):
        if not DeltaTable.is_deltatable(uri):
            raise
