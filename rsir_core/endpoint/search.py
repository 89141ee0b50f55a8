"""The route `/search`: from a request to the rows that are ranked for it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import pyarrow as pa
from fastapi import FastAPI, Request, Response

from rsir_core import schemas
from rsir_core.backend.protocol import CompareRequest, DescribeRequest, RankRequest, RowsRequest
from rsir_core.backend.router import Router
from rsir_core.backend.versions import LoadedVersions
from rsir_core.endpoint.access_log import Entry
from rsir_core.endpoint.messages import AnswerJson, answer_json, item_collection, refusals
from rsir_core.endpoint.reading import Limits, read_search, request_body
from rsir_core.endpoint.request import SearchRequest
from rsir_core.errors import RsirError, StorageError
from rsir_core.retrieval.query import Descriptor, ImageName, Query, Ranked, Ranking
from rsir_core.retrieval.same_place import at_its_place, by_time
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.relevance_feedback import Example, refine

GEOJSON: Final = "application/geo+json"
REFUSALS: Final = refusals({
    401: "this endpoint wants a token",
    404: "a name or a version that is not there",
    413: "too many bytes or pixels",
    415: "neither a form nor JSON, or an image that has no 8-bit RGB meaning",
    422: "anything else that cannot be answered as asked",
    502: "the archive's store refuses or fails",
    503: "too many queries under way; try again after the seconds in Retry-After",
})  # fmt: skip


def add_search(app: FastAPI, router: Router, versions: LoadedVersions, limits: Limits) -> None:
    """Add the route to an application."""

    @app.post(
        "/search",
        response_model=AnswerJson,
        responses=REFUSALS,
        openapi_extra={"requestBody": request_body(limits)},
        description="With `Accept: application/geo+json` the results are a STAC item collection.",
        summary="Rank the index against an uploaded image (form) or one of its own (JSON)",
    )
    async def search(request: Request) -> Response:
        """Rank, and answer in the form that the client accepts."""
        asked, upload = await read_search(request, limits)
        async with versions.lend(asked.version) as served:
            ranking = Ranking.of(asked, served, asked.offset, asked.drawn_on(served))
            ranked = await Search(router, served, request.state.entry).rank(asked, upload, ranking)
            is_geojson = GEOJSON in request.headers.get("accept", "")
            encode = partial(item_collection if is_geojson else partial(answer_json, served), ranking, ranked)
            # A thousand results take some tens of milliseconds, in which nobody else would be answered.
            answer = encode() if ranking.is_light else await asyncio.to_thread(encode)
            return Response(answer, media_type=GEOJSON if is_geojson else "application/json")


class Search:
    """Search one version.

    Args:
        router: what answers.
        served: the version.
        entry: where the request and its times are noted.
    """

    def __init__(self, router: Router, served: ServedVersion, entry: Entry) -> None:
        self._router, self._served, self._entry = router, served, entry

    async def rank(self, asked: SearchRequest, upload: bytes | None, ranking: Ranking) -> Ranked:
        """Describe what is asked with, unless it is in the index, and rank."""
        name = _named(asked)
        if not asked.same_place or name is None:
            return await self._rank(asked, upload, ranking)
        (stored,) = await self._resolve(name)
        tile = await self._router.rows(RowsRequest(self._served.version, [str(stored.image_id)]))
        return by_time(await self._rank(asked, upload, at_its_place(ranking, tile)))

    async def _rank(self, asked: SearchRequest, upload: bytes | None, ranking: Ranking) -> Ranked:
        entry, name = self._entry, _named(asked)
        entry.version, entry.k = self._served.version, asked.k
        if name is not None and asked.is_one_stored_image:
            query: Query = name
        else:
            with entry.timed("describe"):
                query = await self._describe(asked, upload)
        is_new = upload is not None or asked.vector is not None
        resolve = isinstance(query, ImageName) or (is_new and not asked.has_examples)
        with entry.timed("rank"):
            ranked = await self._router.rank(RankRequest(self._served.version, query, ranking, resolve))
        if upload is not None:
            entry.found_object = ranked.query.object is not None
        elif asked.preview and ranked.query.uri is not None and not asked.box and self._served.has_backbone:
            with entry.timed("describe"):
                ranked = ranked._replace(query=await self._with_preview(ranked.query))
        source = upload or ranked.query.uri
        if asked.near_duplicates and not asked.has_examples and source is not None:
            with entry.timed("compare"):
                ranked = await self._compare(source, ranked)
        return ranked

    async def _describe(self, asked: SearchRequest, upload: bytes | None) -> Descriptor:
        """Make the descriptor to rank by: an image or descriptor, moved by its examples, or these alone."""
        base = await self._base(asked, upload)
        if base is not None and not asked.has_examples:
            return base
        if base is not None and (upload is not None or asked.vector is not None):
            (base,) = await self._resolve(base)
        elif base is not None:  # another region of an indexed image is yet to be averaged
            base = await self._router.averaged(self._served.version, base)
        names = [ImageName("image_id", name) for name in (*asked.positive, *asked.negative)]
        found = await self._resolve(*names)
        feature, p = _refined(base, found, asked)
        first, _ = _refined(base, found, asked, unaveraged=True)
        moved = base or Descriptor(None, None, feature, p)
        unaveraged = first if self._served.neighbours else None
        return replace(moved, feature=feature, class_probabilities=p, unaveraged=unaveraged, needs_average=False)

    async def _base(self, asked: SearchRequest, upload: bytes | None) -> Descriptor | None:
        """Describe the image that is asked with; None: there are examples only."""
        version, box = self._served.version, asked.drawn_on(self._served)
        if upload is not None:
            return await self._router.describe(DescribeRequest(version, upload, box, asked.preview))
        if asked.vector is not None:
            return await self._router.describe(DescribeRequest(version, tuple(asked.vector)))
        if asked.feature is not None:
            return asked.ready_descriptor(self._served)
        name = _named(asked)
        if name is None:
            return None
        (stored,) = await self._resolve(name)  # first, so that no URI is opened that the index does not have
        if box is None:
            return stored
        described = await self._router.describe(DescribeRequest(version, str(stored.uri), box, asked.preview))
        return replace(described, image_id=stored.image_id, uri=stored.uri)

    async def _resolve(self, *queries: Query) -> list[Descriptor]:
        return await self._router.resolve(self._served.version, list(queries))

    async def _with_preview(self, stored: Descriptor) -> Descriptor:
        """Add its picture and all of its objects to an indexed image's descriptor; its row has one object only."""
        request = DescribeRequest(self._served.version, str(stored.uri), preview=True)
        try:
            described = await self._router.describe(request)
        except StorageError:
            raise
        except RsirError as error:  # it is ranked by its row all the same
            return replace(stored, notes=f"it cannot be read any more: {error}")
        return replace(stored, objects=described.objects, preview=described.preview)

    async def _compare(self, source: bytes | str, ranked: Ranked) -> Ranked:
        """Add to each row what its picture is to the query's."""
        uris = ranked.rows[schemas.URI].to_pylist()
        kinds = await self._router.compare(CompareRequest(self._served.version, source, uris)) if uris else []
        field = schemas.RESULTS.field(schemas.SAME_PICTURE)
        return ranked._replace(rows=ranked.rows.append_column(field, pa.array(kinds, field.type)))


def _refined(
    base: Descriptor | None, found: Sequence[Descriptor], asked: SearchRequest, unaveraged: bool = False
) -> Example:
    """Move a query towards the positive and away from the negative of the examples found, which are in that order."""

    def example(one: Descriptor) -> Example:
        return Example(one.first_feature if unaveraged else one.feature, one.class_probabilities)

    own, examples = example(base) if base else None, [example(one) for one in found]
    return refine(own, examples[: len(asked.positive)], examples[len(asked.positive) :])


def _named(asked: SearchRequest) -> ImageName | None:
    if asked.image_id is not None:
        return ImageName("image_id", asked.image_id)
    return None if asked.uri is None else ImageName("uri", asked.uri)
