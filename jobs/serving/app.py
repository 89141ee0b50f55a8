"""The routes of the endpoint over any library: what there is to ask, and errors in words."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.convertors import Convertor, register_url_convertor

from jobs.serving.access_log import AccessLog, Entry, Record
from jobs.serving.gather import Backend
from jobs.serving.library import Library
from jobs.serving.messages import (
    AnswerJson,
    ErrorJson,
    HealthJson,
    ImagesJson,
    IndexJson,
    answer_json,
    item_collection,
)
from jobs.serving.query import THUMBNAIL_SIDE, Descriptor, Ranking, shrink, verdict_on
from jobs.serving.reading import Limits, read_search, request_body
from jobs.serving.request import SearchRequest
from jobs.serving.tokens import Tokens, add_tokens
from rsir_core.errors import ImageError, QueryError
from rsir_core.imagery.decode import read_picture
from rsir_core.search.rocchio import Example, refine

WEB: Final = Path(__file__).parents[1] / "web"
GEOJSON: Final = "application/geo+json"
THUMBNAILS_AT_ONCE: Final = 2  # each reads an image of up to `max_pixels`


class _ImageId(Convertor[str]):
    """A path with whatever characters an image's name has, line breaks too, which `path` refuses."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("image_id", _ImageId())


@dataclass(frozen=True)
class EndpointSettings:
    """Hold the settings of an endpoint that do not depend on its index.

    Attributes:
        record: takes note of each request.
        tokens: who may ask; None: everybody.
        refresh: seconds between looks for a newer version.
    """

    record: Record
    tokens: Tokens | None = None
    refresh: float = 10.0


def build_app(library: Library, limits: Limits, desk: EndpointSettings) -> FastAPI:
    """Build the FastAPI application: the endpoint and its page."""

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        async with library.refreshing(desk.refresh):
            yield

    app = FastAPI(
        title="rsir",
        description="Remote-sensing image retrieval",
        docs_url=None,
        redoc_url=None,
        lifespan=running,
        responses={status: {"model": ErrorJson} for status in (401, 404, 422, 502, 503)},
    )
    _add_search(app, library, limits)
    _add_state(app, library, limits)
    _add_browse(app, library, limits)
    if desk.tokens is not None:
        add_tokens(app, desk.tokens, {"/healthz", *map(_address, WEB.iterdir())})
    _add_page(app)
    app.add_middleware(AccessLog, record=desk.record)
    app.exception_handler(QueryError)(_refuse)
    app.exception_handler(RequestValidationError)(_refuse_parameters)
    return app


def _add_search(app: FastAPI, library: Library, limits: Limits) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorJson, "description": text}
        for status, text in {
            401: "this endpoint wants a token",
            404: "a name or a version that is not there",
            413: "too many bytes or pixels",
            415: "neither a form nor JSON, or an image that has no 8-bit RGB meaning",
            422: "anything else that cannot be answered as asked",
            502: "the archive's store refuses or fails",
            503: "too many queries under way; try again after the seconds in Retry-After",
        }.items()
    }

    @app.post(
        "/search",
        response_model=AnswerJson,
        responses=refusals,
        openapi_extra={"requestBody": request_body(limits)},
        description="With `Accept: application/geo+json` the results are a STAC item collection.",
        summary="Rank the index against an uploaded image (form) or one of its own (JSON)",
    )
    async def search(request: Request) -> Response:
        """Describe what is asked with, unless it is in the index, and rank."""
        entry: Entry = request.state.entry
        asked, upload = await read_search(request, limits)
        async with library.lend(asked.version) as backend:
            entry.version, entry.k = backend.edition.version, asked.k
            ranking = Ranking(asked.k, asked.offset, asked.filter, asked.near_duplicates, asked.distance)
            if asked.is_one_stored_image:
                with entry.timed("rank"):
                    query, found = await backend.rank_stored(asked.image_id, asked.uri, ranking)
                if asked.preview:
                    with entry.timed("describe"):
                        query = await _seen(backend, query)
            else:
                with entry.timed("describe"):
                    query = await _query(backend, asked, upload)
                with entry.timed("rank"):
                    if upload is not None and not asked.has_examples:
                        query, found = await backend.rank_described(query, ranking)
                    else:
                        found = await backend.rank(query, ranking)
            if upload is not None:
                entry.found_object = query.object is not None
            if asked.near_duplicates and not asked.has_examples and (source := upload or query.uri) is not None:
                with entry.timed("compare"):
                    found = await backend.compared(source, found)
            if GEOJSON in request.headers.get("accept", ""):
                return Response(item_collection(found.results), media_type=GEOJSON)
            verdict = verdict_on(backend.edition, ranking, query, found.nearest)
            return Response(answer_json(backend.edition, query, found.results, verdict), media_type="application/json")


async def _query(backend: Backend, asked: SearchRequest, upload: bytes | None) -> Descriptor:
    """Make the descriptor to rank by: an image or descriptor, moved by its examples, or these alone."""
    base = await _base(backend, asked, upload)
    if base is not None and not asked.has_examples:
        return base
    if base is not None and upload is not None:
        base = await backend.recognised(base)
    examples = await backend.stored([*asked.positive, *asked.negative], [])
    found = [Example(e.feature, e.class_probabilities) for e in examples]
    own = Example(base.feature, base.class_probabilities) if base else None
    feature, p = refine(own, found[: len(asked.positive)], found[len(asked.positive) :])
    return replace(base or Descriptor(None, None, feature, p), feature=feature, class_probabilities=p)


async def _base(backend: Backend, asked: SearchRequest, upload: bytes | None) -> Descriptor | None:
    box = asked.given_box
    if upload is not None:
        return await backend.describe(upload, box, asked.preview)
    if asked.feature is not None:
        return asked.ready_descriptor(backend.edition)
    if asked.image_id is None and asked.uri is None:
        return None
    # Looked up first, so that no URI is opened that the index does not have.
    (stored,) = await backend.stored(*([] if name is None else [name] for name in (asked.image_id, asked.uri)))
    if box is None:
        return await _seen(backend, stored) if asked.preview else stored
    described = await backend.describe(str(stored.uri), box, asked.preview)
    return replace(described, image_id=stored.image_id, uri=stored.uri)


async def _seen(backend: Backend, stored: Descriptor) -> Descriptor:
    """Add its picture and all of its objects to an indexed image's descriptor; its row has one object only."""
    try:
        described = await backend.describe(str(stored.uri), None, True)
    except QueryError as error:
        if error.status == 503:
            raise
        return replace(stored, notes=f"it cannot be read any more: {error}")  # and is ranked by its row all the same
    return replace(stored, objects=described.objects, preview=described.preview)


def _add_state(app: FastAPI, library: Library, limits: Limits) -> None:
    probes: dict[int, asyncio.Task[None]] = {}  # under way, by version: strangers may ask, and all get one answer

    @app.get("/healthz", summary="Run a tiny query")
    async def healthz() -> HealthJson:
        async with library.lend(None) as backend:
            version = backend.edition.version
            if version not in probes:
                probes[version] = asyncio.create_task(backend.probe())
                probes[version].add_done_callback(lambda _: probes.pop(version))
            await asyncio.shield(probes[version])
            return {"status": "ok", "version": version}

    @app.get("/index", summary="What is served, and the limits that queries have")
    async def index() -> IndexJson:
        """Describe the newest version that is loaded."""
        async with library.lend(None) as backend:
            edition, held = backend.edition, await backend.held()
        return {
            "version": edition.version,
            "versions": library.versions,
            "problem": library.problem,
            "images": edition.images,
            "classes": held.classes,
            "class_names": list(edition.classes),
            "columns": held.columns,
            "times": held.times,
            "bounds": held.bounds,
            "dimensions": edition.dimensions,
            "bundle": edition.bundle,
            "pca": edition.pca,
            "has_detector": edition.has_detector,
            "tau": edition.tau,
            "max_k": limits.max_k,
            "max_bytes": limits.max_bytes,
            "max_pixels": limits.max_pixels,
        }


def _add_browse(app: FastAPI, library: Library, limits: Limits) -> None:
    drawers = ThreadPoolExecutor(THUMBNAILS_AT_ONCE)  # which goes on with what a client that leaves has asked for

    @app.get("/images", summary="List the index, by image id")
    async def images(
        contains: str = "",
        of_class: Annotated[str | None, Query(alias="class")] = None,
        offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 24,
    ) -> ImagesJson:
        async with library.lend(None) as backend:
            return await backend.images(contains, of_class, offset, limit)

    @app.get("/thumbnail/{image_id:image_id}", response_class=Response, summary="A small JPEG of an indexed image")
    async def thumbnail(image_id: str) -> Response:
        async with library.lend(None) as backend:
            (stored,) = await backend.stored([image_id], [])
        loop = asyncio.get_running_loop()
        jpeg = await loop.run_in_executor(drawers, _thumbnail, str(stored.uri), limits.max_pixels)
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


def _add_page(app: FastAPI) -> None:
    """Add a route for each file of the page: a mount at `/` would answer other methods by 404 instead of 405."""
    files = StaticFiles(directory=WEB)
    for file in WEB.iterdir():

        async def serve(request: Request, name: str = file.name) -> Response:
            response = await files.get_response(name, request.scope)
            response.headers["Cache-Control"] = "no-cache"  # asked for anew each time: files of two releases do not mix
            return response

        app.add_route(_address(file), serve, include_in_schema=False)


def _address(file: Path) -> str:
    """Map a file of the page to its path on the endpoint."""
    return "/" if file.name == "index.html" else f"/{file.name}"


def _thumbnail(uri: str, max_pixels: int) -> bytes:
    try:
        return shrink(read_picture(uri, max_pixels), THUMBNAIL_SIDE)
    except ImageError as error:
        raise QueryError(f"no thumbnail: {error}", 502 if error.is_refused else 404) from error


async def _refuse(request: Request, error: QueryError) -> JSONResponse:
    return JSONResponse({"detail": error.message}, error.status, {"Retry-After": "5"} if error.status == 503 else None)


async def _refuse_parameters(request: Request, error: RequestValidationError) -> JSONResponse:
    words = [f"{e['loc'][-1]}: {e['msg']}, got {e['input']!r:.100}" for e in error.errors()]
    return JSONResponse({"detail": "; ".join(words)}, 422)
