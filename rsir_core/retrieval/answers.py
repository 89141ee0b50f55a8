"""What shares of the rows answer, and how their answers become one."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple

import pyarrow as pa

from rsir_core import schemas
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.index.no_match import NEIGHBOURS
from rsir_core.retrieval.query import Descriptor, Ranked, Ranking


class Match(NamedTuple):
    """Hold the indexed row that a query names or equals up to rounding."""

    distance: float  # between the two, Euclidean
    image_id: str  # of the row
    query: Descriptor  # with the row's descriptor


class ImagesPage(NamedTuple):
    """Hold a page of the images of an index."""

    total: int  # images on all pages
    images: pa.Table  # of schema `partition_search.IMAGES`, by image id


class RowsSummary(NamedTuple):
    """Summarise rows."""

    classes: dict[str, int]  # images of each class that there is
    columns: list[str]  # that a predicate can be about
    times: tuple[datetime, datetime] | None  # first and last; None: no row has one
    bounds: BoundingBox | None  # of all footprints; None: no row has one


def merge_ranked(parts: Sequence[Ranked], ranking: Ranking) -> Ranked:
    """Merge the best rows of all shares for one query, and keep the page that is wanted."""
    rows = parts[0].rows
    if len(parts) > 1:
        rows = pa.concat_tables(part.rows for part in parts)
        rows = rows.sort_by([(parts[0].ranked_by, "ascending"), (schemas.IMAGE_ID, "ascending")])
    neighbours = sorted(chain.from_iterable(part.neighbours for part in parts))[:NEIGHBOURS]
    nearest = min(part.nearest for part in parts)
    page = rows.slice(ranking.offset, ranking.k)
    return parts[0]._replace(rows=page, nearest=nearest, neighbours=tuple(neighbours))


def merge_images(parts: Sequence[ImagesPage], offset: int, limit: int) -> ImagesPage:
    """Merge the first images of all shares, and keep the page that is wanted."""
    images = pa.concat_tables(part.images for part in parts).sort_by(schemas.IMAGE_ID)
    return ImagesPage(sum(part.total for part in parts), images.slice(offset, limit))


def merge_summaries(parts: Sequence[RowsSummary]) -> RowsSummary:
    """Summarise the rows of all shares."""
    times = [time for part in parts for time in part.times or ()]
    bounds = [part.bounds for part in parts if part.bounds]
    edges = [f(found) for f, found in zip((min, min, max, max), zip(*bounds, strict=True), strict=False)]
    return RowsSummary(
        dict(sum((Counter(part.classes) for part in parts), Counter[str]())),
        parts[0].columns,
        (min(times), max(times)) if times else None,
        BoundingBox(*edges) if bounds else None,
    )
