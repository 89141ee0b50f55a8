"""Bearer tokens, of which only hashes are kept."""

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from rsir_core.endpoint.reading import limited
from rsir_core.endpoint.request import in_words
from rsir_core.errors import ConfigError

COOKIE: Final = "rsir_token"
EXCHANGE: Final = "/token"
LONGEST: Final = 4096  # bytes of a request for a cookie
NAME: Final = re.compile(r"[^:#\s-][^:#\s]*")
LINE: Final = re.compile(r"([^:#]+):([0-9a-f]{64})")


class TokenRequest(BaseModel):
    """Hold the body that `/token` takes."""

    token: str


class Tokens:
    """Hold tokens by their SHA-256; they are random and long, so that no slow hash is needed.

    Args:
        hashes: of each token, in hexadecimal, by the name of whom it was given to.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)

    @classmethod
    def read(cls, file: str) -> "Tokens":
        """Parse lines of `name:hash`; empty ones and those that begin with # are passed over.

        Raises:
            ConfigError: it cannot be read, another line is in it, or none.
        """
        try:
            lines = Path(file).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--tokens {file}: cannot be read: {error}") from error
        hashes = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            found = LINE.fullmatch(line.strip())
            if found is None:  # not quoted here: it may be a token
                raise ConfigError(
                    f"--tokens {file}: line {number} is not `name:sha256`; make it with jobs.serve_tokens"
                )
            if found[1] in hashes:
                raise ConfigError(
                    f"--tokens {file}: line {number} gives {found[1]} a second token; give it another name"
                )
            hashes[found[1]] = found[2]
        if not hashes:
            raise ConfigError(f"--tokens {file}: no token; make one with python -m jobs.serve_tokens NAME >> {file}")
        return cls(hashes)

    def name_of(self, token: str) -> str | None:
        """Find whose token it is; None: nobody's. Takes the same time for all."""
        given = hash_of(token)
        names = [name for name, known in self._hashes.items() if hmac.compare_digest(given, known)]
        return names[0] if names else None


def hash_of(token: str) -> str:
    """Hash a token; only this is kept of it."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


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
        try:
            token = TokenRequest.model_validate_json(await limited(request, LONGEST, "give a token alone").body()).token
        except ValidationError as error:
            raise in_words(error) from error
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
