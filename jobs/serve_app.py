"""The routes of the endpoint over any back end: what a request may ask, its limits, and errors in words."""

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.types import Message

from jobs.serve_gather import Gatherer
from jobs.serve_messages import (
    AnswerJson,
    ErrorJson,
    HealthJson,
    ImagesJson,
    IndexJson,
    SearchRequest,
    answer_json,
    in_words,
)
from jobs.serve_query import THUMBNAIL_SIDE, Descriptor, Ranking, shrink
from rsir_core.errors import ImageError, QueryError
from rsir_core.feedback import Example, refine
from rsir_core.raster import read_picture
from rsir_core.regions import Box

WEB: Final = Path(__file__).parent / "web"
THUMBNAILS_AT_ONCE: Final = 2  # each may decode a picture of `max_pixels`
SECURITY: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Backend(Gatherer):
    """Where queries are described and ranked, for one edition."""

    @abstractmethod
    async def describe(self, source: bytes | str, box: Box | None, preview: bool) -> Descriptor:
        """Describe an upload, or the indexed image behind a URI."""


class Library(Protocol):
    """The editions that are loaded."""

    def backend(self, version: int | None) -> Backend:
        """That of a version, or of the newest.

        Raises:
            QueryError: 404, it is not loaded.
        """

    def versions(self) -> list[int]:
        """Those that can be asked for."""


@dataclass(frozen=True)
class Limits:
    """What a query may ask for."""

    max_k: int
    max_bytes: int
    max_pixels: int


def build_app(library: Library, limits: Limits) -> FastAPI:
    """The endpoint and its page."""
    app = FastAPI(title="rsir", description="Remote-sensing image retrieval", docs_url=None, redoc_url=None)
    _add_search(app, library, limits)
    _add_state(app, library, limits)
    _add_browse(app, library, limits)
    app.mount("/", StaticFiles(directory=WEB, html=True))
    app.middleware("http")(_secure)
    app.exception_handler(QueryError)(_refuse)
    app.exception_handler(RequestValidationError)(_refuse_parameters)
    return app


def _add_search(app: FastAPI, library: Library, limits: Limits) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorJson, "description": text}
        for status, text in {
            404: "a name that is not in the index",
            413: "too many bytes or pixels",
            415: "neither a form nor JSON, or an image that has no 8-bit RGB meaning",
            422: "anything else that cannot be answered as asked",
            503: "too many queries under way; try again after the seconds in Retry-After",
        }.items()
    }

    @app.post(
        "/search",
        response_model=AnswerJson,
        responses=refusals,
        openapi_extra={"requestBody": _request_body()},
        summary="Rank the index against an uploaded image (form) or one of its own (JSON)",
    )
    async def search(request: Request) -> JSONResponse:
        asked, upload = await read_search(request, limits)
        backend = library.backend(asked.version)
        ranking = Ranking(asked.offset + asked.k, asked.filter, asked.near_duplicates)
        if asked.is_one_stored_image:
            query, results = await backend.rank_stored(asked.image_id, asked.uri, ranking)
        else:
            query = await _query(backend, asked, upload)
            results = await backend.rank(query, ranking)
        return JSONResponse(answer_json(backend.edition, query, results[asked.offset :]))


async def _query(backend: Backend, asked: SearchRequest, upload: bytes | None) -> Descriptor:
    """What is ranked by: an image or descriptor, moved by the examples that came with it, or these alone."""
    base = await _base(backend, asked, upload)
    if base is not None and not asked.positive and not asked.negative:
        return base
    examples = await backend.stored([*asked.positive, *asked.negative], [])
    found = [Example(e.feature, e.class_probabilities) for e in examples]
    own = Example(base.feature, base.class_probabilities) if base else None
    feature, p = refine(own, found[: len(asked.positive)], found[len(asked.positive) :])
    return replace(base or Descriptor(None, None, feature, p), feature=feature, class_probabilities=p)


async def _base(backend: Backend, asked: SearchRequest, upload: bytes | None) -> Descriptor | None:
    box = asked.given_box
    if upload is not None:
        return await backend.recognised(await backend.describe(upload, box, asked.preview))
    if asked.feature is not None:
        return asked.ready_descriptor(backend.edition)
    if asked.image_id is None and asked.uri is None:
        return None
    # Looked up first, so that no URI is opened that the index does not have.
    (stored,) = await backend.stored(*([name] if name else [] for name in (asked.image_id, asked.uri)))
    if box is None:
        return stored
    described = await backend.describe(str(stored.uri), box, asked.preview)
    return replace(described, image_id=stored.image_id, uri=stored.uri)


def _add_state(app: FastAPI, library: Library, limits: Limits) -> None:
    @app.get("/healthz", summary="Run a tiny query")
    async def healthz() -> HealthJson:
        backend = library.backend(None)
        await backend.probe()
        return {"status": "ok", "version": backend.edition.version}

    @app.get("/index", summary="What is served, and the limits that queries have")
    async def index() -> IndexJson:
        backend = library.backend(None)
        edition, held = backend.edition, await backend.held()
        return {
            "version": edition.version,
            "versions": library.versions(),
            "images": edition.images,
            "classes": held.classes,
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
    decoding = asyncio.Semaphore(THUMBNAILS_AT_ONCE)

    @app.get("/images", summary="List the index, by image id")
    async def images(
        contains: str = "",
        of_class: Annotated[str | None, Query(alias="class")] = None,
        offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 24,
    ) -> ImagesJson:
        return await library.backend(None).images(contains, of_class, offset, limit)

    @app.get("/thumbnail/{image_id:path}", response_class=Response, summary="A small JPEG of an indexed image")
    async def thumbnail(image_id: str) -> Response:
        (stored,) = await library.backend(None).stored([image_id], [])
        async with decoding:
            jpeg = await asyncio.to_thread(_thumbnail, str(stored.uri), limits.max_pixels)
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


def _thumbnail(uri: str, max_pixels: int) -> bytes:
    try:
        return shrink(read_picture(uri, max_pixels), THUMBNAIL_SIDE)
    except ImageError as error:
        raise QueryError(f"no thumbnail: {error}", 404) from error


async def read_search(request: Request, limits: Limits) -> tuple[SearchRequest, bytes | None]:
    """What a request asks for, and the image that it uploads, if it does.

    Raises:
        QueryError: 413, 415 or 422, with what is wrong in words.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    request = _limited(request, limits.max_bytes)
    try:
        if kind == "multipart/form-data":
            asked, upload = await _read_form(request)
        elif kind == "application/json":
            asked, upload = SearchRequest.model_validate_json(await request.body()), None
        else:
            raise QueryError(
                f"Content-Type is {kind!r}; send multipart/form-data with `image`, or application/json with `image_id` "
                "or `uri`",
                415,
            )
    except ValidationError as error:
        raise in_words(error) from error
    _check(asked, upload, limits)
    return asked, upload


def _check(asked: SearchRequest, upload: bytes | None, limits: Limits) -> None:
    named = sum(given is not None for given in (upload, asked.image_id, asked.uri, asked.feature))
    if named > 1 or (named == 0 and not asked.positive):
        raise QueryError(
            "give exactly one of `image` (a file, in a form), `image_id`, `uri` and `feature` (in JSON), or none of "
            "them and `positive` examples"
        )
    if (asked.feature is None) != (asked.class_probabilities is None):
        raise QueryError("a ready descriptor is `feature` and `class_probabilities`; give both")
    if asked.box is not None and (named == 0 or asked.feature is not None):
        raise QueryError("box: there is no image to draw it on; give one with `image`, `image_id` or `uri`")
    if asked.offset + asked.k > limits.max_k:
        raise QueryError(
            f"k: {asked.k} from offset {asked.offset} reaches beyond this endpoint's {limits.max_k} results; ask for "
            "fewer"
        )


def _limited(request: Request, max_bytes: int) -> Request:
    """The same request, refused as soon as more has come than an upload may have."""
    refusal = QueryError(f"the request is larger than this endpoint's {max_bytes} bytes; send a smaller image", 413)
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise refusal
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise refusal
        return message

    return Request(request.scope, receive)


async def _read_form(request: Request) -> tuple[SearchRequest, bytes | None]:
    async with request.form(max_files=1) as form:
        image = form.get("image")
        if image is not None and not isinstance(image, UploadFile):
            raise QueryError("image: a text, not a file; send the file itself, with a file name")
        fields: dict[str, Any] = {}
        for name in set(form) - {"image"}:
            values = form.getlist(name)
            if any(isinstance(value, UploadFile) for value in values):
                raise QueryError(f"{name}: a file; send the file as `image`")
            fields[name] = values if len(values) > 1 else values[0]
        return SearchRequest.model_validate(fields), None if image is None else await image.read()


def _request_body() -> dict[str, Any]:
    """What `/search` takes, for /openapi.json: FastAPI cannot read it off a handler that takes either of two forms."""
    schema = SearchRequest.model_json_schema()
    asked: dict[str, Any] = schema["properties"]
    form = {name: field for name, field in asked.items() if name not in ("image_id", "uri")}
    form["image"] = {"type": "string", "format": "binary", "description": "the image to find others like"}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "properties": form, "required": ["image"]}},
            "application/json": {"schema": {"type": "object", "properties": asked}},
        },
    }


async def _secure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(SECURITY)
    return response


async def _refuse(request: Request, error: QueryError) -> JSONResponse:
    return JSONResponse({"detail": error.message}, error.status)


async def _refuse_parameters(request: Request, error: RequestValidationError) -> JSONResponse:
    words = [f"{e['loc'][-1]}: {e['msg']}, got {e['input']!r:.100}" for e in error.errors()]
    return JSONResponse({"detail": "; ".join(words)}, 422)
