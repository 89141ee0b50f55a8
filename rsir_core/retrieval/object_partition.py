"""The further objects of an index's images in memory, ready to be searched; and which rows a search is about."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from rsir_core import schemas
from rsir_core.arrays import Ints
from rsir_core.index.delta import TableFile
from rsir_core.index.index import Index
from rsir_core.index.stored_objects import count_objects, read_objects
from rsir_core.retrieval.partition import SCHEMA, Partition
from rsir_core.search.clusters import Clusters
from rsir_core.search.exact import Hits


class ObjectPartition(Partition):
    """Hold the regions of objects of a version, or of a share of it, as rows; see `Partition`.

    Attributes:
        image: (m,) position of each row's image in the `Partition` of the same share.
        number: (m,) of each region within its image, from 1 on.
    """

    schema = SCHEMA.append(schemas.NUMBERED)
    names = ()

    def _load(self, index: Index, share: Sequence[TableFile], shape: tuple[int, int], is_averaged: bool) -> None:
        self._images: list[Ints] = [np.empty(0, np.int64)]
        super()._load(index, share, shape, is_averaged)
        self.image = np.concatenate(self._images)
        number = self.table[schemas.REGION_NUMBER]
        self.number: Ints = number.to_numpy() if len(number) else np.empty(0, np.int32)

    def _count(self, index: Index, share: Sequence[TableFile]) -> int:
        return count_objects(index, share)

    def _read(self, index: Index, share: Sequence[TableFile]) -> Iterator[tuple[pa.Table, Clusters]]:
        start = 0
        for file in share:
            found = read_objects(index, file)
            if found is not None and len(found.table):
                self._images.append(found.image + start)
                yield found.table, found.clusters
            start += file.row_count


def best_of_images(search: Callable[[int], Hits], image: Ints, number: Ints, first: int, by: str) -> Hits:
    """Find the best row of each of the `first` best images, by as many rows as that takes.

    Args:
        search: finds so many best rows, fewer where there are no more.
        image: (n,) of each row.
        number: (n,) of each row within its image; of equally good rows of one image the smaller one counts.
        first: images, at least 1; all where there are fewer.
        by: the field of `Hits` that orders them.
    """
    k = first
    while True:
        hits = search(k)
        key, of_image = getattr(hits, by), image[hits.rows]
        run = np.cumsum(np.append(0, (np.diff(key) != 0) | (np.diff(of_image) != 0))[: len(key)])
        order = np.lexsort((number[hits.rows], run))
        _, places = np.unique(of_image[order], return_index=True)
        places.sort()
        # Rows as good as the last image's may have been left out, and be another image's, or its own of less number.
        if len(key) < k or (len(places) >= first and key[-1] > key[order][places[first - 1]]):
            return hits.take(order[places[:first]])
        k *= 2


def best_rows(parts: Sequence[pa.Table], by: str, first: int) -> pa.Table:
    """Merge rows of key regions and of objects, each at most one of an image: the first images, by their best rows."""
    if len(parts) == 1:
        return parts[0]
    order = (by, schemas.IMAGE_ID, schemas.REGION_NUMBER)
    rows = pa.concat_tables(parts).sort_by([(name, "ascending") for name in order])
    _, places = np.unique(np.asarray(rows[schemas.IMAGE_ID].to_pylist(), object), return_index=True)
    return rows.take(pa.array(np.sort(places)[:first]))
