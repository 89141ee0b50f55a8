"""Stored embeddings by the files that hold them, so that nothing else is read."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rsir_core import schemas
from rsir_core.index.diff import at_places, semi
from rsir_core.index.index import Index
from rsir_core.index.layout import KEY
from rsir_core.storage.filesystem import opened

FILE: Final = "file"  # column: of `embeddings`, by its path below the table
PIECE: Final = 4096  # rows that are held at once: 20 MB of embeddings of 1,280
KEYS: Final = pa.schema(
    [*(schemas.EMBEDDINGS.field(name) for name in KEY), (FILE, pa.dictionary(pa.int32(), pa.string()))]
)
# `take` makes one array of each column, whose texts may then be more than 2 GiB: 40 million ids are.
_LARGE: Final = pa.schema([*(pa.field(name, pa.large_string(), nullable=False) for name in KEY), KEYS.field(FILE)])
_PART: Final = pa.schema([*(KEYS.field(name) for name in KEY), (FILE, pa.string())])


def stored_keys(index: Index) -> pa.Table:
    """List what is stored, once each: columns `image_id`, `etag` and `file`; about 150 bytes per row."""
    if not index.has_table("embeddings"):
        return KEYS.empty_table()
    scanner = index.open_table("embeddings").to_pyarrow_dataset().scanner(columns=[*KEY, "__filename"])
    with index.reading("embeddings"):
        batches = [
            [
                *(batch[name].cast(pa.string()) for name in KEY),
                batch["__filename"].cast(pa.string()).dictionary_encode(),
            ]
            for batch in scanner.to_batches()
        ]
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays(b, schema=KEYS) for b in batches], KEYS)
    return first_of(table.unify_dictionaries())


def first_of(table: pa.Table) -> pa.Table:
    """Keep the first row of each key, of rows of schema `KEYS`."""
    keys = table.select(KEY).append_column("position", pa.array(np.arange(len(table))))
    first = keys.group_by(KEY, use_threads=False).aggregate([("position", "min")])["position_min"]
    return table if len(first) == len(table) else at_places(table, first)


def by_file(keys: pa.Table, size: int) -> list[pa.Table]:
    """Split rows of `stored_keys` into parts of so many, those of a file together, the files by their first image.

    Names of files and the order of commits differ between runs that describe the same; what is summed up must not.
    """
    file = keys[FILE].combine_chunks()
    file = file.chunk(0) if isinstance(file, pa.ChunkedArray) else file
    firsts = pa.table([file.indices, keys[schemas.IMAGE_ID]], ["file", "image"]).group_by("file", use_threads=False)
    order = firsts.aggregate([("image", "first")]).sort_by("image_first")["file"]
    place = np.zeros(len(file.dictionary), np.int64)
    place[np.asarray(order)] = np.arange(len(order))
    keys = keys.cast(_LARGE).take(pa.array(np.argsort(place[np.asarray(file.indices)], kind="stable")))
    starts = range(0, len(keys), size)
    return [keys.take(pa.array(np.arange(start, min(start + size, len(keys))))).cast(_PART) for start in starts]


def stored_rows(index: Index, part: pa.Table, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read some columns of the rows of a part, at most `PIECE` rows at a time, file by file as they lie in the part."""
    fs, root = opened(index.table_uri("embeddings"))
    names = list(dict.fromkeys([*KEY, *columns]))
    schema = pa.schema([schemas.EMBEDDINGS_WITH_OBJECTS.field(name) for name in names])
    runs = pc.run_end_encode(part[FILE].combine_chunks())  # not groups, which come in any order
    ends = runs.run_ends.to_pylist()
    for name, start, end in zip(runs.values.to_pylist(), [0, *ends], ends, strict=False):
        wanted = part.slice(start, end - start)
        with pq.ParquetFile(f"{root}/{name}", filesystem=fs) as file:
            whole = len(wanted) == file.metadata.num_rows
            for batch in file.iter_batches(PIECE, columns=names):
                piece = schemas.with_missing(pa.Table.from_batches([batch]), schema).select(names).cast(schema)
                piece = piece if whole else semi(piece, wanted)
                if len(piece):
                    yield piece.select(list(columns))
