"""The rows of an index in memory, ready to be searched: what ranks them in arrays, the rest in a mapped file."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa

from rsir_core import schemas
from rsir_core.arrays import Floats, Ints, Mask
from rsir_core.index.delta import TableFile
from rsir_core.index.index import Index
from rsir_core.retrieval.served_version import widths
from rsir_core.search.clusters import Clusters, Ranges, make_clusters
from rsir_core.search.distance import classes, complements
from rsir_core.search.exact import Hits, Searcher
from rsir_core.search.filters import Filter
from rsir_core.search.hash_index import HashIndex, hashes_of

SCHEMA = pa.schema(
    [
        f
        for f in schemas.FEATURES
        if f.name not in (schemas.FEATURE, schemas.UNAVERAGED, schemas.ETAG, schemas.BUNDLE, schemas.PCA)
    ]
)


class Partition:
    """Hold a version's rows, or a share of them, in memory.

    Per row, 4·(K + C) bytes to rank it by and 24 to find it by its image id and URI are in memory; 4·K more where
    features are averaged. The rest lies in a temporary file without a name (as Linux has them); the system keeps what
    is asked for often.

    Attributes:
        table: the rows, of `SCHEMA`, mapped.
        feature: (n, K) float32.
        unaveraged: (n, K) float32, before they were averaged with their neighbours; `feature` itself if they were not.
        clusters: the runs that they lie in.
    """

    schema: ClassVar[pa.Schema] = SCHEMA
    names: ClassVar[Sequence[str]] = (schemas.IMAGE_ID, schemas.URI)  # columns by which rows are found

    def __init__(self, index: Index, version: int, part: int = 0, parts: int = 1, is_averaged: bool = False) -> None:
        """Load a version.

        Args:
            index: where it is.
            version: of `features`.
            part: takes every `parts`-th file, from this one on.
            parts: shares in all.
            is_averaged: whether features are averaged.

        Raises:
            TableError: no such version.
        """
        files = [file for file in index.feature_files(version) if file.row_count]
        self._load(index, files[part::parts], widths(index, files[0]), is_averaged)

    def _load(self, index: Index, share: Sequence[TableFile], shape: tuple[int, int], is_averaged: bool) -> None:
        n = self._count(index, share)
        self.feature, complement = np.empty((n, shape[0]), np.float32), np.empty((max(shape[1], 1), n), np.float32)
        self.unaveraged = np.empty_like(self.feature) if is_averaged else self.feature
        hashes = {name: np.empty(n, np.uint64) for name in self.names}
        runs: list[Clusters] = []

        def read() -> Iterator[pa.Table]:
            """Read what is mapped of each file, while what ranks and finds its rows goes into the arrays."""
            start = 0
            for table, clusters in self._read(index, share):
                here = slice(start, start := start + len(table))
                self.feature[here] = schemas.to_matrix(table[schemas.FEATURE])
                if is_averaged:
                    self.unaveraged[here] = schemas.unaveraged_features(table)
                complement[:, here] = complements(schemas.to_matrix(table[schemas.CLASS_PROBABILITIES])).T
                for name, column in hashes.items():
                    column[here] = hashes_of(table[name])
                runs.append(clusters)
                yield table.select(self.schema.names)

        self.table = _mapped(read(), self.schema)
        self.clusters = Clusters.join(runs) if runs else Clusters.none(*shape)
        self._lookup = {name: HashIndex(column) for name, column in hashes.items()}
        ids = self.table[schemas.IMAGE_ID]
        self._searcher = self._unaveraged = Searcher(ids, self.feature, complement, self.clusters)
        if is_averaged:
            self._unaveraged = Searcher(ids, self.unaveraged, complement, self.clusters.around(self.unaveraged))
        self._batches = self.table.to_batches()
        self._starts = np.cumsum([0, *map(len, self._batches)])
        pa.default_memory_pool().release_unused()  # the files as they were read

    def _count(self, index: Index, share: Sequence[TableFile]) -> int:
        """Count the rows of files."""
        return sum(file.row_count for file in share)

    def _read(self, index: Index, share: Sequence[TableFile]) -> Iterator[tuple[pa.Table, Clusters]]:
        """Read the rows of each file, and their clusters."""
        return (_clustered(*index.read_features(file)) for file in share)

    def __len__(self) -> int:
        return len(self.feature)

    def take(self, positions: Ints, columns: Sequence[str] = SCHEMA.names) -> pa.Table:
        """Take rows of `table` in this order. Arrow's own `take` would first put together all of a column's chunks."""
        batch_of = np.searchsorted(self._starts, positions, side="right") - 1
        parts, places = [], []
        for b in np.unique(batch_of):
            mine = np.flatnonzero(batch_of == b)
            parts.append(self._batches[b].select(columns).take(pa.array(positions[mine] - self._starts[b])))
            places.append(mine)
        if not parts:
            return self.table.select(columns).schema.empty_table()
        return pa.Table.from_batches(parts).combine_chunks().take(pa.array(np.argsort(np.concatenate(places))))

    def find(self, column: str, text: str) -> int | None:
        """Find the row of an image id or a URI."""
        return self._lookup[column].find(text, lambda row: self.table[column][row].as_py() == text)

    def passing(self, wanted: Filter, class_names: tuple[str, ...]) -> Mask | None:
        """Find which rows pass a filter, (n,); None: all."""
        return wanted.rows(self.table, self.clusters, class_names)

    def search(
        self,
        feature: Floats,
        class_probabilities: Floats,
        k: int,
        allowed: Mask | None,
        euclidean: bool,
        least_weight: float = 0,
    ) -> Hits:
        """Search the rows; see `Searcher.search`."""
        return self._searcher.search(feature, class_probabilities, k, allowed, euclidean, least_weight)

    def search_unaveraged(self, feature: Floats, class_probabilities: Floats, k: int, allowed: Mask | None) -> Hits:
        """Search by the Euclidean distance of features before they were averaged."""
        return self._unaveraged.search(feature, class_probabilities, k, allowed, euclidean=True)


def _mapped(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Write the tables as one, one chunk each, to a mapped file that goes with the last that refers to it."""
    with tempfile.TemporaryFile() as file:  # never with a name, which a process that is killed would leave
        with pa.ipc.new_file(file, schema) as writer:
            for table in tables:
                writer.write_table(table.combine_chunks())
        file.flush()
        return pa.ipc.open_file(pa.memory_map(f"/proc/self/fd/{file.fileno()}")).read_all()


def in_runs(table: pa.Table) -> tuple[pa.Table, Clusters]:
    """Order rows of `schemas.FEATURES` by their clusters, and return both."""
    probabilities = schemas.to_matrix(table[schemas.CLASS_PROBABILITIES])
    order, clusters = make_clusters(
        schemas.to_matrix(table[schemas.FEATURE]), classes(probabilities), complements(probabilities), Ranges.of(table)
    )
    return table.take(pa.array(order)), clusters


def _clustered(table: pa.Table, clusters: Clusters | None) -> tuple[pa.Table, Clusters]:
    """Return a file as it was written, or clustered here if somebody else wrote it without."""
    return in_runs(table) if clusters is None else (table, clusters)
