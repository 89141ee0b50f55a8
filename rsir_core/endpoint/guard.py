"""Refuse requests without a token, and let browsers exchange theirs for a cookie."""

from collections.abc import Collection
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from rsir_core.endpoint.reading import read_json
from rsir_core.endpoint.tokens import Tokens

COOKIE: Final = "rsir_token"
EXCHANGE: Final = "/token"
LONGEST: Final = 4096  # bytes of a request for a cookie


class TokenRequest(BaseModel):
    """Hold the body that `/token` takes."""

    token: str


def add_tokens(app: FastAPI, tokens: Tokens, open_paths: Collection[str]) -> None:
    """Refuse whoever has no token, but for some paths; and let browsers exchange theirs for a cookie.

    A page can send no header with its images. The cookie is out of reach for scripts, and other sites cannot use it.
    """
    body = {"required": True, "content": {"application/json": {"schema": TokenRequest.model_json_schema()}}}

    @app.post(
        EXCHANGE,
        status_code=204,
        openapi_extra={"requestBody": body},
        summary="Give a token once, instead of with every request: sets a cookie",
    )
    async def exchange(request: Request) -> Response:
        """Read here and not by FastAPI, which would answer 400 to what is too long."""
        token = (await read_json(request, TokenRequest, LONGEST)).token
        if tokens.name_of(token) is None:
            return _refusal()
        response = Response(status_code=204)
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))  # TLS may end before
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return response

    app.add_middleware(Guard, tokens=tokens, open_paths={EXCHANGE, *open_paths})


class Guard:
    """Let through whoever has a token, in `Authorization: Bearer` or the cookie."""

    def __init__(self, app: ASGIApp, tokens: Tokens, open_paths: Collection[str]) -> None:
        self._app, self._tokens, self._open = app, tokens, frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an ASGI request; see the class."""
        if scope["type"] != "http":  # the start and the end of the endpoint, which have no path
            await self._app(scope, receive, send)
            return
        if scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            token = request.cookies.get(COOKIE, "")
        name = self._tokens.name_of(token.strip())
        if name is None:
            await _refusal()(scope, receive, send)
            return
        request.state.entry.client = name
        await self._app(scope, receive, send)


def _refusal() -> JSONResponse:
    words = "this endpoint wants a token; send it as `Authorization: Bearer TOKEN`, or once to /token"
    return JSONResponse({"detail": words}, 401, {"WWW-Authenticate": "Bearer"})
