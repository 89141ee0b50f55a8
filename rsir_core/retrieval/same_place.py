"""The same place at all dates: the tiles that lie in one cell of the global grid."""

from dataclasses import replace

import pyarrow as pa

from rsir_core import schemas
from rsir_core.errors import QueryError
from rsir_core.retrieval.query import Ranked, Ranking


def at_its_place(ranking: Ranking, tile: pa.Table) -> Ranking:
    """Limit a ranking to the tiles of one cell, by the Euclidean distance: no class is looked for.

    Args:
        ranking: what else is wanted.
        tile: the row of a tile of that cell.

    Raises:
        QueryError: it is none.
    """
    cell, image_id = tile[schemas.CELL][0].as_py(), tile[schemas.IMAGE_ID][0].as_py()
    if cell is None:
        raise QueryError(f"same_place: {image_id} is no cell of the global grid; index the archive with --grid")
    where = (*ranking.filter.where, (schemas.CELL, "==", cell))
    return replace(ranking, filter=replace(ranking.filter, where=where), distance="plain")


def by_time(ranked: Ranked) -> Ranked:
    """Order what was found by the time of acquisition, and then by image id; what has no time comes last."""
    order = [(schemas.TIME, "ascending"), (schemas.IMAGE_ID, "ascending")]
    return ranked._replace(rows=ranked.rows.sort_by(order))
