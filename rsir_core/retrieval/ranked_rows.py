"""Rank the rows of key regions or of objects for a query, as rows of an answer."""

from typing import Final

import numpy as np
import pyarrow as pa

from rsir_core import schemas
from rsir_core.arrays import Ints, Mask
from rsir_core.retrieval.object_partition import ObjectPartition, best_of_images
from rsir_core.retrieval.partition import SCHEMA, Partition
from rsir_core.retrieval.query import Descriptor, Ranking
from rsir_core.search.distance import NEAR
from rsir_core.search.exact import Hits

FACTORS: Final = ("weighted_distance", "distance", "query_weight", "candidate_weight")
PROBABILITY: Final = "probability"
RANKED: Final = pa.schema(
    [
        *(SCHEMA.field(name) for name in (
            schemas.IMAGE_ID, schemas.URI, schemas.CLASS, schemas.REGION, schemas.OBJECT_CLASS, schemas.OBJECT_SCORE,
            schemas.OBJECT_BOX, schemas.HEIGHT, schemas.WIDTH, schemas.TIME, schemas.BBOX, schemas.GEOMETRY,
            schemas.CRS, schemas.WINDOW, schemas.CELL, schemas.COVERED,
        )),
        *(pa.field(name, pa.float64()) for name in FACTORS),  # the first is the product of the others
        pa.field(PROBABILITY, pa.float32()),  # of the row's class
        schemas.NUMBERED,
    ]
)  # fmt: skip
ROW_COLUMNS: Final = [name for name in RANKED.names if name in SCHEMA.names]  # without what a query brings


def rank_rows(
    part: Partition, query: Descriptor, ranking: Ranking, allowed: Mask | None, is_averaged: bool
) -> tuple[pa.Table, float]:
    """Rank key regions, or objects: the best row of each image (`RANKED`), and the smallest distance of any."""
    is_plain = ranking.ranked_by == "distance"
    ask = query.feature, query.class_probabilities
    first = query.first_feature, query.class_probabilities

    def search(k: int) -> Hits:
        if ranking.near_duplicates:
            return part.search_unaveraged(*first, k, allowed)
        return part.search(*ask, k, allowed, is_plain, ranking.least_weight)

    if isinstance(part, ObjectPartition):
        hits = best_of_images(search, part.image, part.number, ranking.first, ranking.ranked_by)
        number = part.number[hits.rows]
    else:
        hits = search(ranking.first)
        number = np.zeros(len(hits.rows), np.int32)
    is_known = not len(hits.rows) or (is_plain and not is_averaged)
    nearest = hits if is_known else part.search_unaveraged(*first, 1, allowed)  # of all, also of what is cut off below
    kept = np.ones(len(number), np.bool_)
    if ranking.near_duplicates:
        kept &= hits.distance <= NEAR
    if ranking.max_distance is not None:
        kept &= getattr(hits, ranking.ranked_by) <= ranking.max_distance
    hits, number = hits.take(np.flatnonzero(kept)), number[kept]
    rows = take_rows(part, hits.rows)
    for place, name in enumerate(FACTORS, len(ROW_COLUMNS)):
        rows = rows.add_column(place, RANKED.field(name), [getattr(hits, name)])
    rows = rows.append_column(schemas.NUMBERED, [pa.array(number, pa.int32())])
    return rows, float(nearest.distance[0]) if len(nearest.rows) else np.inf


def take_rows(part: Partition, places: Ints) -> pa.Table:
    """Return rows as answers have them: `ROW_COLUMNS` and the probability of their class."""
    found = part.take(places)
    probability = schemas.to_matrix(found[schemas.CLASS_PROBABILITIES]).max(axis=1, initial=0)
    rows = found.select(ROW_COLUMNS).cast(pa.schema([RANKED.field(name) for name in ROW_COLUMNS]))
    return rows.append_column(RANKED.field(PROBABILITY), [probability])
