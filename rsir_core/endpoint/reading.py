"""Read a request to `/search` from either of its two forms, within the limits."""

from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import Message, Receive

from rsir_core.endpoint.request import SearchRequest
from rsir_core.errors import QueryError
from rsir_core.search.filter_options import in_words

SOURCES: Final = frozenset(
    {"image_id", "uri", "feature", "class_probabilities", "vector"}
)  # of a query, but for an upload
JSON: Final = "application/json"
JSON_BYTES: Final = 1_000_000  # a descriptor of 2,048 dimensions and 100 examples have a tenth of it

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Limits:
    """Limit what a request may ask for.

    Attributes:
        max_k: results of a query.
        max_bytes: of an upload.
        max_pixels: of an upload.
        max_labels: labels that one request may save; 0: none are saved.
    """

    max_k: int
    max_bytes: int
    max_pixels: int
    max_labels: int = 1000


async def read_search(request: Request, limits: Limits) -> tuple[SearchRequest, bytes | None]:
    """Parse what a request asks for, and the image that it uploads, if it does.

    Raises:
        QueryError: it is too large, in no such form, or asks for what cannot be.
    """
    kind = _content_type(request)
    try:
        if kind == "multipart/form-data":
            asked, upload = await _read_form(limited(request, limits.max_bytes, "send a smaller image"))
        elif kind == JSON:
            body = await limited(request, min(limits.max_bytes, JSON_BYTES), "ask for less at once").body()
            asked, upload = SearchRequest.model_validate_json(body), None
        else:
            raise QueryError(
                f"Content-Type is {kind!r}; send multipart/form-data with `image`, or application/json with `image_id` "
                "or `uri`",
                "unsupported",
            )
    except ValidationError as error:
        raise in_words(error) from error
    _check(asked, upload, limits)
    return asked, upload


async def read_json(request: Request, model: type[M], max_bytes: int = JSON_BYTES) -> M:
    """Parse a JSON body. It must say that it is JSON: other sites' pages cannot send that without asking first.

    Raises:
        QueryError: it is too large, says that it is something else, or does not fit the model.
    """
    if (kind := _content_type(request)) != JSON:
        raise QueryError(f"Content-Type is {kind!r}; send {JSON}", "unsupported")
    try:
        return model.model_validate_json(await limited(request, max_bytes, "send less at once").body())
    except ValidationError as error:
        raise in_words(error) from error


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _check(asked: SearchRequest, upload: bytes | None, limits: Limits) -> None:
    named = sum(given is not None for given in (upload, asked.image_id, asked.uri, asked.feature, asked.vector))
    if named > 1 or (named == 0 and not asked.positive):
        raise QueryError(
            "give exactly one of `image` (a file, in a form), `image_id`, `uri`, `vector` and `feature` (in JSON), or "
            "none of them and `positive` examples"
        )
    if (asked.feature is None) != (asked.class_probabilities is None):
        raise QueryError("a ready descriptor is `feature` and `class_probabilities`; give both")
    if asked.box is not None and (named == 0 or asked.feature is not None or asked.vector is not None):
        raise QueryError("box: there is no image to draw it on; give one with `image`, `image_id` or `uri`")
    if asked.same_place and asked.image_id is None and asked.uri is None:
        raise QueryError("same_place: an upload is at no place; give `image_id` or `uri` of an indexed tile")
    if asked.offset + asked.k > limits.max_k:
        raise QueryError(
            f"k: {asked.k} from offset {asked.offset} reaches beyond this endpoint's {limits.max_k} results; ask for "
            "fewer"
        )


def limited(request: Request, max_bytes: int, remedy: str) -> Request:
    """Limit a request: it is refused as soon as more bytes of it have come."""
    refusal = QueryError(f"the request is larger than this endpoint's {max_bytes} bytes; {remedy}", "too_large")
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise refusal
    return Request(request.scope, _at_most(max_bytes, request.receive, refusal))


def _at_most(max_bytes: int, receive: Receive, refusal: QueryError) -> Receive:
    """Wrap `receive` so that it raises as soon as more bytes of the request have come."""
    received = 0

    async def receive_some() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise refusal
        return message

    return receive_some


@asynccontextmanager
async def _parsed(request: Request) -> AsyncIterator[FormData]:
    """Parse the form in a request; its files are removed when the body ends."""
    try:
        form = await request.form(max_files=1)
    except (HTTPException, MultiPartException, LookupError, ValueError) as error:  # the last two: an unknown charset
        why = getattr(error, "detail", None) or str(error)
        raise QueryError(f"the form cannot be read: {why:.200}; send one image as `image`, and texts") from error
    try:
        yield form
    finally:
        await form.close()


async def _read_form(request: Request) -> tuple[SearchRequest, bytes | None]:
    async with _parsed(request) as form:
        image = form.get("image")
        if image is not None and not isinstance(image, UploadFile):
            raise QueryError("image: a text, not a file; send the file itself, with a file name")
        fields: dict[str, Any] = {}
        for name in set(form) - {"image"}:
            values = form.getlist(name)
            if any(isinstance(value, UploadFile) for value in values):
                raise QueryError(f"{name}: a file; send the file as `image`")
            if not all(_is_text(value) for value in [name, *values]):
                raise QueryError(f"{name!a}: not UTF-8 text; send the form in UTF-8")
            fields[name] = values if len(values) > 1 else values[0]
        return SearchRequest.model_validate(fields), None if image is None else await image.read()


def _is_text(decoded: Any) -> bool:
    """Tell whether a text has no half of a surrogate pair, which some charsets (UTF-7) decode to."""
    try:
        decoded.encode()
    except UnicodeEncodeError:
        return False
    return True


def request_body(limits: Limits) -> dict[str, Any]:
    """Describe what `/search` takes, for /openapi.json: FastAPI cannot derive two forms from one handler."""
    fields: dict[str, Any] = SearchRequest.model_json_schema()["properties"]
    fields["k"] |= {"maximum": limits.max_k, "description": "how many results; with `offset` no more than the maximum"}
    fields["offset"]["maximum"] = limits.max_k - 1
    image = {
        "type": "string",
        "format": "binary",
        "description": f"the image to find others like; at most {limits.max_pixels} pixels, and {limits.max_bytes} "
        "bytes with the rest of the request",
    }
    stored = [_body(fields, [name], absent=SOURCES - {name}) for name in ("image_id", "uri")]
    ready = _body(fields, ["feature", "class_probabilities"], absent={"image_id", "uri", "vector", "box", "same_place"})
    vector = _body(fields, ["vector"], absent=(SOURCES | {"box", "same_place"}) - {"vector"})
    examples = _body(fields, ["positive"], absent=SOURCES | {"box", "same_place"})
    examples["properties"]["positive"] |= {"minItems": 1}
    upload = _body(fields | {"image": image}, ["image"], absent=SOURCES | {"same_place"})
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": upload},
            "application/json": {"schema": {"oneOf": [*stored, ready, vector, examples]}},
        },
    }


def _body(fields: dict[str, Any], given: list[str], absent: Set[str]) -> dict[str, Any]:
    """Describe a body that has some fields, which are not null then, lacks some, and may have all others."""
    properties = {name: dict(field) for name, field in fields.items() if name not in absent}
    for name in given:
        kinds = properties[name].pop("anyOf", [])
        properties[name] |= next((kind for kind in kinds if kind != {"type": "null"}), {})
        properties[name].pop("default", None)
    return {"type": "object", "properties": properties, "required": given, "additionalProperties": False}
