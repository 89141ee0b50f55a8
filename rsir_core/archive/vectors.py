"""Archives of embeddings that somebody else made: Parquet or GeoParquet files, read in pieces, as a listing with etags.

A row's etag is a hash of all that is read of it, so a run finds what has changed in files that were written anew.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rsir_core import schemas
from rsir_core.archive.listing import is_hidden
from rsir_core.archive.vector_columns import VectorColumns, choose_columns
from rsir_core.arrays import Ints
from rsir_core.errors import ArchiveError, RsirError
from rsir_core.storage.filesystem import file_system, links_of

ENDINGS: Final = (".parquet", ".geoparquet", ".pq", ".gpq")
PIECE: Final = 4096  # rows held at once: 16 MB of 1,024 numbers
SAMPLE: Final = 10_000  # first rows whose most common length is the vectors'
CONCURRENT_FOOTERS: Final = 16  # read at once; each mostly waits for its store
NO_IMAGE: Final = "vectors:"  # before the image id, in place of an image's URI where the files name none
LISTS: Final = pa.large_list(pa.field("element", pa.float32()))
PIECES: Final = pa.schema(
    [
        *schemas.LISTING.remove(schemas.LISTING.get_field_index(schemas.SIZE)),
        (schemas.EMBEDDING, LISTS),  # null, or of any length, as it is in the file
        (schemas.GEOMETRY, pa.large_binary()),  # WKB, in the files' reference system
    ]
)


class RowGroup(NamedTuple):
    """Name a row group of a file, which is read in pieces."""

    path: str  # on the archive's file system
    name: str  # of the file, below the archive
    group: int
    first: int  # row of the file that it begins with


class VectorArchive(NamedTuple):
    """Hold what an archive of embeddings consists of.

    Attributes:
        uri: of the file, or of the folder of files.
        columns: which are read.
        groups: row groups of all files, the files by name.
        dimensions: D, the most common length of the first vectors.
    """

    uri: str
    columns: VectorColumns
    groups: list[RowGroup]
    dimensions: int


class Listed(NamedTuple):
    """Hold the rows of an archive of embeddings.

    Attributes:
        listing: schema `schemas.LISTING`.
        group: (n,), of each row, the position of its row group.
    """

    listing: pa.Table
    group: Ints


def open_vectors(uri: str, vector: str, named: Mapping[str, str]) -> VectorArchive:
    """Find the files of an archive of embeddings, and choose their columns by the first; see `choose_columns`.

    Raises:
        ArchiveError: there is no such file, one is damaged, or the columns are not to be found.
        StorageError: the store cannot be opened.
    """
    fs, root = file_system(uri.rstrip("/"), use_listings_cache=False)
    with _reading(uri):
        is_folder = fs.isdir(root)
        paths = sorted(path for path in fs.find(root) if _is_vectors(path[len(root) :])) if is_folder else [root]
        if not paths:
            raise ArchiveError(f"{uri} has no file with one of the endings {' '.join(ENDINGS)}")
        with ThreadPoolExecutor(CONCURRENT_FOOTERS) as threads:
            footers = list(threads.map(lambda path: pq.read_metadata(path, filesystem=fs), paths))
        schema = pq.read_schema(paths[0], filesystem=fs)
    columns = choose_columns(schema, vector, named, paths[0])
    groups = []
    for path, footer in zip(paths, footers, strict=True):
        starts = np.cumsum([0, *(footer.row_group(i).num_rows for i in range(footer.num_row_groups))]).tolist()
        name = path[len(root) :].lstrip("/") or path.rpartition("/")[2]
        groups += [RowGroup(path, name, i, starts[i]) for i in range(footer.num_row_groups)]
    return VectorArchive(uri, columns, groups, _dimensions(uri, columns, groups, schema.field(columns.vector).type))


def _is_vectors(below: str) -> bool:
    return below.lower().endswith(ENDINGS) and not is_hidden(below)


def _dimensions(uri: str, columns: VectorColumns, groups: list[RowGroup], kind: pa.DataType) -> int:
    """Find D."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    lengths: Counter[int] = Counter()
    archive = VectorArchive(uri, columns, groups, 0)
    for piece in (piece for group in groups for piece in read_pieces(archive, group)):
        lengths.update(pc.list_value_length(piece[schemas.EMBEDDING]).drop_null().to_pylist())
        if lengths.total() >= SAMPLE:
            break
    del lengths[0]
    if not lengths:
        raise ArchiveError(f"{uri}: the column {columns.vector!r} has no vector; name another by --vectors")
    return lengths.most_common(1)[0][0]


def read_pieces(archive: VectorArchive, group: RowGroup) -> Iterator[pa.Table]:
    """Read the rows of a row group, at most `PIECE` at a time; schema `PIECES`.

    Raises:
        ArchiveError: the file is damaged or lacks a column; a remote archive names a local image.
    """
    fs, _ = file_system(archive.uri.rstrip("/"))
    first, columns = group.first, archive.columns
    with _reading(group.path), pq.ParquetFile(group.path, filesystem=fs) as file:
        if missing := set(columns.names) - set(file.schema_arrow.names):
            raise ArchiveError(
                f"{group.path} lacks the column {min(missing)!r}, which other files of {archive.uri} have"
            )
        for batch in file.iter_batches(PIECE, row_groups=[group.group], columns=columns.names):
            yield _piece(archive, group, pa.Table.from_batches([batch]), first)
            first += len(batch)


def _piece(archive: VectorArchive, group: RowGroup, rows: pa.Table, first: int) -> pa.Table:
    n, columns = len(rows), archive.columns
    numbers = pa.array([f"{group.name}#row={row}" for row in range(first, first + n)], pa.string())
    ids = numbers if columns.id is None else pc.fill_null(_one(rows[columns.id], pa.string()), numbers)
    no_image = pc.binary_join_element_wise(NO_IMAGE, ids, "")
    uris = no_image if columns.uri is None else pc.fill_null(_one(rows[columns.uri], pa.string()), no_image)
    if columns.uri is not None and _is_remote(archive.uri):
        _check_remote(uris, archive.uri)
    times = pa.nulls(n, schemas.UTC) if columns.time is None else _times(rows[columns.time])
    vectors = _one(rows[columns.vector], LISTS)
    outlines = pa.nulls(n, pa.large_binary())
    if columns.geometry is not None:
        outlines = _one(rows[columns.geometry], pa.large_binary())
    return pa.table([ids, uris, _etags(uris, times, vectors, outlines), times, vectors, outlines], PIECES)


def _one(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """Cast a column of few rows, as one array."""
    cast = column.cast(kind)
    found: pa.Array = cast.combine_chunks() if cast.num_chunks != 1 else cast.chunk(0)
    return found


def _times(column: pa.ChunkedArray) -> pa.Array:
    """Convert dates, timestamps (UTC, unless they say otherwise) or ISO 8601 texts; null: it cannot be read."""
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        naive = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
        return _one(naive, schemas.UTC)
    return pa.array([text and _time(text) for text in column.to_pylist()], schemas.UTC)


@cache
def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _etags(uris: pa.Array, times: pa.Array, vectors: pa.Array, outlines: pa.Array) -> pa.Array:
    """Hash each row."""
    values, ends = memoryview(vectors.values.to_numpy(zero_copy_only=False)), vectors.offsets.to_pylist()
    rest = zip(uris.to_pylist(), times.cast(pa.int64()).to_pylist(), outlines.to_pylist(), strict=True)
    found = []
    for row, about in enumerate(rest):
        digest = hashlib.blake2b(values[ends[row] : ends[row + 1]], digest_size=8)
        digest.update(repr(about).encode())
        found.append(digest.hexdigest())
    return pa.array(found, pa.string())


def _is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith(("file:", "local:"))


def _check_remote(uris: pa.Array, archive: str) -> None:
    """Check that a remote archive names no file of this machine, which an endpoint would then show."""
    for uri in uris.to_pylist():
        if not uri.startswith(NO_IMAGE) and not all(_is_remote(link) for link in links_of(uri)):
            raise ArchiveError(
                f"{archive} names the local file {uri}; a remote archive may not, pass --columns uri=none"
            )


def list_vectors(archive: VectorArchive) -> Listed:
    """List all rows, with the hash of each as its etag; only keys are held, about 200 bytes per row.

    Raises:
        ArchiveError: as `read_pieces`; or two rows have one id, or there is no row.
    """
    pieces, group = [schemas.LISTING.empty_table()], [np.empty(0, np.int64)]
    for place, found in enumerate(archive.groups):
        for piece in read_pieces(archive, found):
            sizes = pa.repeat(pa.scalar(-1, pa.int64()), len(piece))
            columns = [sizes if name == schemas.SIZE else piece[name] for name in schemas.LISTING.names]
            pieces.append(pa.table(columns, schemas.LISTING))
            group.append(np.full(len(piece), place))
    listing = pa.concat_tables(pieces)
    if len(listing) == 0:
        raise ArchiveError(f"{archive.uri} has no row")
    counts = listing.group_by(schemas.IMAGE_ID).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))
    if len(twice):
        raise ArchiveError(
            f"{archive.uri}: {len(twice)} ids of the column {archive.columns.id!r} are not unique, such as "
            f"{twice[schemas.IMAGE_ID][0]}; name another by --columns id=COLUMN, or number the rows of each file by "
            "--columns id=none"
        )
    return Listed(listing, np.concatenate(group))


@contextmanager
def _reading(uri: str) -> Iterator[None]:
    """Explain errors of reading in the body.

    Raises:
        ArchiveError: the files are missing, denied, damaged, or hold values that cannot be converted.
    """
    try:
        yield
    except RsirError:
        raise
    except Exception as error:  # each store has its own family of errors, and Arrow several
        what = "does not exist" if isinstance(error, FileNotFoundError) else "cannot be read as Parquet"
        raise ArchiveError(f"{uri} {what}; check the address and the file: {type(error).__name__}: {error}") from error


def explain_vector(vector: Any, dimensions: int) -> tuple[str, str] | None:
    """Say why a vector cannot be indexed, as kind and words; None: it can."""
    if vector is None:
        return "no_data", "it has no vector"
    if len(vector) != dimensions:
        return "unsupported", f"its vector has {len(vector)} numbers, and the others {dimensions}"
    if not np.isfinite(vector).all():
        return "corrupt", "its vector has numbers that are missing or not finite"
    return None if np.any(vector) else ("no_data", "its vector is zero, which has no direction")
