from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from fastapi import Request, Response

from rsir_core.endpoint.page_files import PageSettings
from tests.support import serving
from tests.support.page import Page, Placed, opened, place_rows


@pytest.fixture(scope="module")
def placed(index: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    copy = serving.copy_of(index, tmp_path_factory.mktemp("placed") / "index")
    found = place_rows(copy)
    app, busy = serving.local_app(copy.uri, page=PageSettings("https://viewer.example/?lat={lat}&id={image_id}")), [0]

    @app.middleware("http")
    async def refuse(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path == "/search" and busy[0] > 0:
            busy[0] -= 1
            return Response(status_code=503, headers={"Retry-After": "1"})
        return await call_next(request)

    with serving.serving(app) as url:
        yield Placed(url, found, busy, copy.uri)


@pytest.fixture
def page(chromium: Any, url: str) -> Iterator[Page]:
    yield from opened(chromium, url)


@pytest.fixture
def map_page(chromium: Any, placed: Placed) -> Iterator[Page]:
    yield from opened(chromium, placed.url)
