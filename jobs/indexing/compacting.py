"""Compaction: merge the small files that many small runs leave, and drop rows that are no longer listed."""

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from jobs.indexing import publishing
from jobs.pipeline.rows import rows_of
from rsir_core import schemas
from rsir_core.index.delta import TableFile, WrittenFile
from rsir_core.index.diff import anti, semi
from rsir_core.index.embedding_files import FILE, by_file, stored_keys, stored_rows
from rsir_core.index.index import Index
from rsir_core.index.labels import merge_label_files
from rsir_core.index.stored_objects import read_with_objects
from rsir_core.index.writer import IndexWriter, write_rows

EMBEDDINGS_PER_FILE = 16_384  # about 42 MB at 1,280 dimensions; a worker holds twice that


def compact(writer: IndexWriter) -> None:
    """Compact the tables, each in one atomic commit, unless there is nothing to merge."""
    compact_features(writer)
    compact_embeddings(writer)
    merge_label_files(writer.index)


def compact_features(writer: IndexWriter) -> None:
    """Merge the small files of `features`.

    No process holds more than the rows of one file: Ray sorts them, on disk if memory does not suffice.
    """
    index, most = writer.index, publishing.FEATURES_PER_FILE
    small = [file for file in index.feature_files() if file.row_count < most // 2]
    if len(small) < 2:
        return
    uri = index.uri

    def read(files: pa.Table) -> pa.Table:
        """Read the rows of one file."""
        (file,) = files.to_pylist()
        return read_with_objects(Index(uri), TableFile(**file))[0]

    files = ray.data.from_arrow([pa.Table.from_pylist([file._asdict()]) for file in small])
    merged = files.map_batches(read, batch_size=None, batch_format="pyarrow")
    written = publishing.write_features(index, merged, sum(file.row_count for file in small)).files
    writer.commit("features", written, "append", small)


def compact_embeddings(writer: IndexWriter) -> None:
    """Merge the files of `embeddings` of which few rows are published, and drop their other rows.

    Call this only after publishing: rows that are described but not published yet are dropped.
    """
    index, stored = writer.index, stored_keys(writer.index)
    published = semi(stored, index.keys("features"))
    live = dict.fromkeys((file.name for file in index.table_files("embeddings")), 0)
    counts = published.group_by(FILE).aggregate([(FILE, "count")])
    live |= zip(counts[FILE].to_pylist(), counts[f"{FILE}_count"].to_pylist(), strict=True)
    small = [name for name, count in live.items() if count < EMBEDDINGS_PER_FILE // 2]
    dead = anti(stored, published)
    if len(small) < 2 and not pc.any(_is_in(dead[FILE], small)).as_py():
        return
    uri = index.uri

    def merge(part: pa.Table) -> pa.Table:
        """Write the rows of several files as one file."""
        merged = pa.concat_tables(stored_rows(Index(uri), part, schemas.EMBEDDINGS_WITH_OBJECTS.names))
        return pa.Table.from_pylist([write_rows(uri, "embeddings", merged)._asdict()])

    parts = by_file(published.filter(_is_in(published[FILE], small)), EMBEDDINGS_PER_FILE)
    written: list[WrittenFile] = []
    if parts:
        found = ray.data.from_arrow(parts).map_batches(merge, batch_size=None, batch_format="pyarrow")
        written = [WrittenFile(**row) for row in rows_of(found)]
    writer.commit("embeddings", written, "append", [TableFile(name, live[name]) for name in small])


def _is_in(files: pa.ChunkedArray, small: list[str]) -> pa.ChunkedArray:
    """Tell for each row whether its file is among those given."""
    return pc.is_in(files.cast(pa.string()), pa.array(small, pa.string()))
