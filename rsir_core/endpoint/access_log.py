"""One line per request, and headers that every answer has."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

GONE: Final = 499  # the client left before it was answered


@dataclass
class Entry:
    """Hold a request as it is counted and logged, without names of images and secrets.

    Attributes:
        method: GET, POST, …
        route: as declared, without what the client put in; `other`: none of them.
        status: HTTP.
        ms: milliseconds by stage: total, describe, rank.
        version: of the index that it was answered by.
        k: results that were asked for.
        found_object: whether the detector found one in an upload.
        client: whose token it carried.
    """

    method: str
    route: str = "other"
    status: int = GONE
    ms: dict[str, float] = field(default_factory=dict)
    version: int | None = None
    k: int | None = None
    found_object: bool | None = None
    client: str | None = None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long the body took, besides what was noted of the same stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.ms[stage] = round(self.ms.get(stage, 0) + (time.perf_counter() - began) * 1000, 3)


Record = Callable[[Entry], None]


class AccessLog:
    """Record each request once it is answered. Handlers find their entry in `request.state.entry`.

    Args:
        app: what answers.
        record: called with each entry.
        headers: that every answer has.
    """

    def __init__(self, app: ASGIApp, record: Record, headers: Mapping[str, str]) -> None:
        self._app, self._record, self._headers = app, record, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an ASGI request; see the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry = Entry(scope["method"])
        scope.setdefault("state", {})["entry"] = entry

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        try:
            with entry.timed("total"):
                await self._app(scope, receive, noted)
        except Exception:
            entry.status = 500
            raise
        finally:
            entry.route = getattr(scope.get("route"), "path", "other")
            self._record(entry)
