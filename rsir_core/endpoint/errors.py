"""Map each kind of error to the HTTP status that answers it."""

from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from rsir_core.errors import (
    BundleError,
    ImageError,
    LabelError,
    QueryError,
    ReadOnlyError,
    RsirError,
    StorageError,
    TableError,
)

INVALID: Final = 422  # any other kind
STATUS: Final[Mapping[str | type[RsirError], int]] = {
    "unknown": 404,
    "missing": 404,
    "too_large": 413,
    "unsupported": 415,
    "unreachable": 502,
    "busy": 503,
    TableError: 404,  # a version that a worker had not loaded, and cannot any more
    BundleError: 404,
    ReadOnlyError: 403,
    StorageError: 503,  # it may answer again
}


def status_of(error: RsirError) -> int:
    """Find the status that an error is answered with."""
    is_refused = isinstance(error, ImageError) and error.is_refused  # by the store, which is not the client's doing
    return STATUS.get("unreachable" if is_refused else getattr(error, "kind", type(error)), INVALID)


def add_refusals(app: FastAPI) -> None:
    """Let an application answer errors by their status and in words."""
    for kind in (QueryError, ImageError, LabelError, TableError, BundleError, StorageError):
        app.exception_handler(kind)(_refuse)
    app.exception_handler(RequestValidationError)(_refuse_parameters)


async def _refuse(request: Request, error: RsirError) -> JSONResponse:
    status = status_of(error)
    return JSONResponse({"detail": str(error)}, status, {"Retry-After": "5"} if status == 503 else None)


async def _refuse_parameters(request: Request, error: RequestValidationError) -> JSONResponse:
    words = [f"{e['loc'][-1]}: {e['msg']}, got {e['input']!r:.100}" for e in error.errors()]
    return JSONResponse({"detail": "; ".join(words)}, INVALID)
