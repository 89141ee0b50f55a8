"""Asks describers and searchers, and merges what all searchers answer, as if one of them had all rows.

A call of another process costs milliseconds of CPU on both sides, as much as a search or a tenth of a description; so
what is asked at the same time goes in one call.
"""

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from rsir_core.arrays import Floats
from rsir_core.backend.batch import BATCH, Batcher, alone
from rsir_core.backend.protocol import (
    CellsRequest,
    CompareRequest,
    Describer,
    DescribeRequest,
    ImagesRequest,
    NearRowsRequest,
    NeighboursRequest,
    PartitionRequest,
    RankRequest,
    ResolveRequest,
    RowsRequest,
    ScoredRequest,
    Searcher,
    SummaryRequest,
)
from rsir_core.errors import QueryError
from rsir_core.imagery.picture import PROBE, shrink
from rsir_core.retrieval.answers import (
    ImagesPage,
    Match,
    RowsSummary,
    merge_images,
    merge_ranked,
    merge_summaries,
)
from rsir_core.retrieval.density import CellCounts, cell_size, merge_cells
from rsir_core.retrieval.query import (
    LIGHT_ROWS,
    Descriptor,
    ImageName,
    Likeness,
    Query,
    Ranked,
    Ranking,
    average,
    without_own,
)
from rsir_core.retrieval.scored_rows import ScoredPage, merge_scored
from rsir_core.retrieval.served_version import ServedVersion

T = TypeVar("T")

SMALL: Final = 1_000_000  # bytes of an upload that is decoded in about the time that its description takes
PROBE_UPLOAD: Final = shrink(PROBE, 32)


class Router:
    """Route requests to a describer and to searchers.

    Args:
        describer: what describes.
        searchers: what searches, one per share of the rows.
        descriptions: most concurrent calls of the describer; further small requests wait and are batched.
        searches: likewise for each searcher.
        pictures: most small uploads per call of the describer.
    """

    def __init__(
        self,
        describer: Describer,
        searchers: Sequence[Searcher],
        descriptions: int = 1,
        searches: int = 1,
        pictures: int = BATCH,
    ) -> None:
        self._describer, self._searchers = describer, searchers
        self._describe = Batcher[DescribeRequest, Descriptor](describer.describe, pictures, descriptions)
        self._answers = [Batcher[PartitionRequest[Any], Any](one.answer, BATCH, searches) for one in searchers]

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Let all of them load these versions and let go of others; returns why some cannot be loaded."""
        refused: dict[int, str] = {}
        for answer in await asyncio.gather(*(one.hold(versions) for one in (self._describer, *self._searchers))):
            refused |= answer
        return refused

    async def describe(self, request: DescribeRequest) -> Descriptor:
        """Describe a picture, with others unless it is large or must be fetched first.

        Raises:
            ImageError: it cannot become a picture.
            QueryError: the box is empty or reaches outside the picture.
        """
        is_slow = isinstance(request.source, str) or (isinstance(request.source, bytes) and len(request.source) > SMALL)
        return await (alone(self._describer.describe, request) if is_slow else self._describe(request))

    async def compare(self, request: CompareRequest) -> list[Likeness | None]:
        """Compare pictures; see `QueryDescriber.compare`.

        Raises:
            ImageError: the upload cannot become a picture.
        """
        return await alone(self._describer.compare, request)

    async def resolve(self, version: int, queries: list[Query]) -> list[Descriptor]:
        """Replace queries by the rows that they name or, up to rounding, are; others stay as they are.

        Raises:
            QueryError: one names an image that is not in the index.
        """
        parts = await self._ask(ResolveRequest(version, queries), len(queries) <= LIGHT_ROWS)
        found = [_best(query, of_query) for query, *of_query in zip(queries, *parts, strict=True)]
        return [await self.averaged(version, query) for query in found]

    async def rank(self, request: RankRequest) -> Ranked:
        """Rank the rows for a query; where one searcher has all of them, in one call.

        Raises:
            QueryError: the query names an image that is not in the index, or the filter does not suit the index.
        """
        if request.resolve and len(self._searchers) > 1:
            (query,) = await self.resolve(request.version, [request.query])
            request = request._replace(query=query, resolve=False)
        if isinstance(request.query, Descriptor) and len(self._searchers) > 1:
            request = request._replace(query=await self.averaged(request.version, request.query))
        if request.ranking.is_open and len(self._searchers) > 1 and isinstance(request.query, Descriptor):
            near = await self._ask(NeighboursRequest(request.version, request.query, request.ranking.regions))
            others = without_own(chain.from_iterable(near), request.query.image_id)
            request = request._replace(ranking=request.ranking.settled(others))
        parts = await self._ask(request, request.ranking.is_light)
        found = [part for part in parts if part is not None]
        if not found and isinstance(request.query, ImageName):
            raise _unknown(request.query)
        return merge_ranked(found, request.ranking)

    async def images(self, request: ImagesRequest) -> ImagesPage:
        """List a page of the images by id.

        Raises:
            QueryError: the index does not know the class.
        """
        return merge_images(await self._ask(request, is_light=False), request.offset, request.limit)

    async def rows(self, request: RowsRequest) -> pa.Table:
        """Return the rows of images; those that are not in the index are left out."""
        return pa.concat_tables(await self._ask(request, is_light=False))

    async def scored(self, request: ScoredRequest, offset: int, limit: int) -> ScoredPage:
        """Return a page of the rows by what a scorer gives them; `first` of the request covers it.

        Raises:
            LabelError: the scorer is of another model bundle.
        """
        return merge_scored(await self._ask(request, is_light=False), request.wanted.order, offset, limit)

    async def summary(self, version: int) -> RowsSummary:
        """Summarise all rows."""
        return merge_summaries(await self._ask(SummaryRequest(version), is_light=False))

    async def density(self, version: int) -> CellCounts | None:
        """Count all footprints by cells of a grid; None: there are no footprints."""
        bounds = (await self.summary(version)).bounds
        if bounds is None:
            return None
        return merge_cells(await self._ask(CellsRequest(version, cell_size(bounds)), is_light=False))

    async def probe(self, served: ServedVersion) -> None:
        """Run a tiny query; raises where it fails."""
        if served.has_backbone:
            query = await self.describe(DescribeRequest(served.version, PROBE_UPLOAD))
        else:
            query = Descriptor(None, None, np.zeros(served.dimensions, np.float32), _even(len(served.classes)))
        await self.rank(RankRequest(served.version, query, Ranking(1)))

    async def averaged(self, version: int, query: Descriptor) -> Descriptor:
        """Average a query's feature with the nearest of all rows, where that is yet to be done."""
        if not query.needs_average:
            return query
        parts = await self._ask(NearRowsRequest(version, query))
        return average(query, chain.from_iterable(near for _, near in parts), parts[0][0])

    async def _ask(self, request: PartitionRequest[T], is_light: bool = True) -> Sequence[T]:
        """Return what each searcher answers, with other requests if it is light."""
        if is_light:
            answers: list[T] = await asyncio.gather(*(answer(request) for answer in self._answers))
            return answers
        return await asyncio.gather(*(alone(searcher.answer, request) for searcher in self._searchers))


def _even(classes: int) -> Floats:
    return np.full(classes, 1 / max(classes, 1), np.float32)


def _best(query: Query, matches: Sequence[Match | None]) -> Descriptor:
    """Return the row that is nearest to a query, or the query itself where it is none and names none."""
    found = [match for match in matches if match is not None]
    if found:
        return min(found, key=lambda match: (match.distance, match.image_id)).query
    if isinstance(query, ImageName):
        raise _unknown(query)
    return query


def _unknown(query: ImageName) -> QueryError:
    column, name = query
    return QueryError(f"{column} {name!r} is not in the index; upload the image, or name one that is", "unknown")
