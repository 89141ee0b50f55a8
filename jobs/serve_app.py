"""The routes of the endpoint over any back end: what a request may ask, its limits, and errors in words."""

import asyncio
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

from jobs.serve_messages import AnswerJson, ErrorJson, HealthJson, ImagesJson, IndexJson, SearchRequest, in_words
from jobs.serve_query import THUMBNAIL_SIDE, Descriptor, Edition, shrink
from rsir_core.errors import ImageError, QueryError
from rsir_core.raster import read_picture
from rsir_core.regions import Box

WEB: Final = Path(__file__).parent / "web"
THUMBNAILS_AT_ONCE: Final = 2  # each may decode a picture of `max_pixels`
SECURITY: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Backend(Protocol):
    """Where queries are described and ranked."""

    async def describe(self, source: bytes | str, box: Box | None, preview: bool) -> Descriptor:
        """Describe an upload, or the indexed image behind a URI."""

    async def stored(self, image_id: str | None, uri: str | None) -> Descriptor:
        """The row of an indexed image."""

    async def answer(self, query: Descriptor, k: int, classes: list[str] | None) -> AnswerJson:
        """Rank the index against a query."""

    async def images(self, contains: str, of_class: str | None, offset: int, limit: int) -> ImagesJson:
        """List the index."""

    async def class_counts(self) -> dict[str, int]:
        """How many rows each class has."""

    async def probe(self) -> None:
        """Run a tiny query; raises where it fails."""


@dataclass(frozen=True)
class Limits:
    """What a query may ask for."""

    max_k: int
    max_bytes: int
    max_pixels: int


def build_app(backend: Backend, edition: Edition, limits: Limits) -> FastAPI:
    """The endpoint and its page."""
    app = FastAPI(title="rsir", description="Remote-sensing image retrieval", docs_url=None, redoc_url=None)
    _add_search(app, backend, limits)
    _add_state(app, backend, edition, limits)
    _add_browse(app, backend, limits)
    app.mount("/", StaticFiles(directory=WEB, html=True))
    app.middleware("http")(_secure)
    app.exception_handler(QueryError)(_refuse)
    app.exception_handler(RequestValidationError)(_refuse_parameters)
    return app


def _add_search(app: FastAPI, backend: Backend, limits: Limits) -> None:
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
        query = await _describe(backend, asked, upload)
        return JSONResponse(await backend.answer(query, asked.k, asked.classes))


async def _describe(backend: Backend, asked: SearchRequest, upload: bytes | None) -> Descriptor:
    box = asked.given_box
    if upload is not None:
        return await backend.describe(upload, box, asked.preview)
    stored = await backend.stored(asked.image_id, asked.uri)  # so that no URI is opened that the index does not have
    if box is None or stored.uri is None:
        return stored
    described = await backend.describe(stored.uri, box, asked.preview)
    return replace(described, image_id=stored.image_id, uri=stored.uri)


def _add_state(app: FastAPI, backend: Backend, edition: Edition, limits: Limits) -> None:
    @app.get("/healthz", summary="Run a tiny query")
    async def healthz() -> HealthJson:
        await backend.probe()
        return {"status": "ok", "version": edition.version}

    @app.get("/index", summary="What is served, and the limits that queries have")
    async def index() -> IndexJson:
        return {
            "version": edition.version,
            "images": edition.images,
            "classes": await backend.class_counts(),
            "bundle": edition.bundle,
            "pca": edition.pca,
            "has_detector": edition.has_detector,
            "tau": edition.tau,
            "max_k": limits.max_k,
            "max_bytes": limits.max_bytes,
            "max_pixels": limits.max_pixels,
        }


def _add_browse(app: FastAPI, backend: Backend, limits: Limits) -> None:
    decoding = asyncio.Semaphore(THUMBNAILS_AT_ONCE)

    @app.get("/images", summary="List the index, by image id")
    async def images(
        contains: str = "",
        of_class: Annotated[str | None, Query(alias="class")] = None,
        offset: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 24,
    ) -> ImagesJson:
        return await backend.images(contains, of_class, offset, limit)

    @app.get("/thumbnail/{image_id:path}", response_class=Response, summary="A small JPEG of an indexed image")
    async def thumbnail(image_id: str) -> Response:
        stored = await backend.stored(image_id, None)
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
    if sum(named is not None for named in (upload, asked.image_id, asked.uri)) != 1:
        raise QueryError("give exactly one of `image` (a file, in a form), `image_id` and `uri` (in JSON)")
    if asked.k > limits.max_k:
        raise QueryError(f"k: {asked.k} is more than this endpoint's {limits.max_k}; ask for fewer")
    return asked, upload


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
