"""Average the features of all rows with their nearest ones, on the cluster.

A new, changed or gone row may change the neighbours of any other, so all rows are averaged at each publication. Each
machine holds 4·(W + 2·K) bytes per row meanwhile: 400 MB per million.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray

from rsir_core import schemas
from rsir_core.arrays import Floats
from rsir_core.index.embedding_files import stored_rows
from rsir_core.index.index import Index
from rsir_core.models.pca import Pca
from rsir_core.search.averaging import WIDE, NeighbourSearcher, mean_of

BLOCK: Final = 8192  # rows whose neighbours one task finds


def averaged_features(index: Index, parts: Sequence[pa.Table], pca: Pca) -> Floats:
    """Return the averaged features (n, K) of the rows of several parts, in their order and that of `stored_rows`.

    Args:
        index: the index.
        parts: as `by_file` returns.
        pca: with the number of neighbours.
    """
    widest = min(pca.moments.count - 1, len(pca.mean))
    wide_pca = pca.moments.fit(min(max(WIDE, len(pca.components)), widest))
    project, average = ray.remote(_project), ray.remote(_average)
    models = ray.put((wide_pca, pca))
    projected: list[tuple[Floats, Floats]] = ray.get([project.remote(index.uri, part, models) for part in parts])
    wide, feature = (np.concatenate(column) for column in zip(*projected, strict=True))
    shared: Any = ray.put((NeighbourSearcher(wide), wide, feature))
    rows = min(pca.neighbours + 1, len(feature))
    blocks = [average.remote(shared, slice(start, start + BLOCK), rows) for start in range(0, len(feature), BLOCK)]
    found: Floats = np.concatenate(ray.get(blocks))
    return found


def _project(uri: str, part: pa.Table, models: tuple[Pca, Pca]) -> tuple[Floats, Floats]:
    """Project the embeddings of one part by both PCAs."""
    found = []
    for piece in stored_rows(Index(uri), part, [schemas.EMBEDDING]):
        embedding = schemas.to_matrix(piece[schemas.EMBEDDING])
        found.append([pca.transform(embedding) for pca in models])
    wide, feature = (np.concatenate(column) for column in zip(*found, strict=True))
    return wide, feature


def _average(shared: tuple[NeighbourSearcher, Floats, Floats], block: slice, rows: int) -> Floats:
    """Average the features of one block of rows with the nearest of all."""
    searcher, wide, feature = shared
    return mean_of(feature, searcher.nearest(wide[block], rows))
