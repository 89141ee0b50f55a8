"""A STAC API on loopback: stac-fastapi over items in memory, with pages, CQL2 filters, and refusals at will."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import attr
import cql2
import shapely
from fastapi import Request, Response
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import create_get_request_model, create_post_request_model
from stac_fastapi.extensions.filter import FilterExtension
from stac_fastapi.extensions.pagination import TokenPaginationExtension
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.errors import NotFoundError

from tests.support.serving import serving

Item = dict[str, Any]


@dataclass
class Served:
    """What a server has, and what happened to it.

    Attributes:
        items: as documents; they may be changed.
        busy: how many of the next requests are refused with status 429.
        requests: paths and queries of those that were answered or refused.
    """

    items: list[Item]
    busy: int = 0
    requests: list[str] = field(default_factory=list)
    url: str = ""


@attr.s
class _Client(BaseCoreClient):
    served: Served = attr.ib(default=None)

    def _find(self, request: Request, limit: int | None, token: str | None, wanted: Callable[[Item], bool]) -> Item:
        found = [item for item in self.served.items if wanted(item)]
        start, size = int(token or 0), limit or 10
        links: list[Item] = []
        if start + size < len(found):
            query = {**dict(request.query_params), "token": start + size}
            links = [{"rel": "next", "href": f"{request.url.replace(query='')}?{urlencode(query)}"}]
            if request.method == "POST":
                links[0] |= {"method": "POST", "body": {"token": str(start + size)}, "merge": True}
        return {"type": "FeatureCollection", "features": found[start : start + size], "links": links}

    def get_search(self, collections: Any = None, ids: Any = None, bbox: Any = None, **more: Any) -> Item:  # type: ignore[override]
        more.pop("intersects", None)
        expression = cql2.Expr(more["filter_expr"]) if more.get("filter_expr") else None
        first, _, last = (more.get("datetime") or "../..").partition("/")

        def wanted(item: Item) -> bool:
            time = datetime.fromisoformat(item["properties"]["datetime"])
            return (
                (not collections or item["collection"] in collections)
                and (not ids or item["id"] in ids)
                and (not bbox or overlap(item["bbox"], bbox))
                and (first in ("", "..") or datetime.fromisoformat(first) <= time)
                and (last in ("", "..") or time <= datetime.fromisoformat(last))
                and (expression is None or expression.matches(item))
            )

        return self._find(more["request"], more.get("limit"), more.get("token"), wanted)

    def post_search(self, search_request: Any, **more: Any) -> Item:  # type: ignore[override]
        return self.get_search(**{**search_request.model_dump(), **more})

    def get_item(self, item_id: str, collection_id: str, **_: Any) -> Item:  # type: ignore[override]
        for item in self.served.items:
            if (item["id"], item["collection"]) == (item_id, collection_id):
                return item
        raise NotFoundError(item_id)

    def all_collections(self, **_: Any) -> Item:  # type: ignore[override]
        names = dict.fromkeys(item["collection"] for item in self.served.items)
        return {"collections": [self._collection(name) for name in names], "links": []}

    def get_collection(self, collection_id: str, **_: Any) -> Item:  # type: ignore[override]
        return self._collection(collection_id)

    def _collection(self, name: str) -> Item:
        extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
        return {
            "type": "Collection", "stac_version": "1.1.0", "id": name, "description": name, "license": "other",
            "extent": extent, "links": [],
        }  # fmt: skip

    def item_collection(self, collection_id: str, **more: Any) -> Item:  # type: ignore[override]
        return self.get_search(**{**more, "collections": [collection_id]})


def overlap(one: Any, other: Any) -> bool:
    """Whether two boxes meet."""
    return bool(shapely.box(*one).intersects(shapely.box(*other)))


@contextmanager
def stac_api(items: list[Item]) -> Iterator[Served]:
    """Serve items while the body runs."""
    served = Served(items)
    extensions = [TokenPaginationExtension(), FilterExtension()]
    api = StacApi(
        settings=ApiSettings(enable_response_models=False), client=_Client(extensions=extensions, served=served),
        extensions=extensions, search_get_request_model=create_get_request_model(extensions),
        search_post_request_model=create_post_request_model(extensions),
    )  # fmt: skip

    @api.app.middleware("http")
    async def _refuse(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        served.requests.append(f"{request.url.path}?{request.url.query}{(await request.body()).decode()}")
        if served.busy:
            served.busy -= 1
            return Response("later", 429, {"Retry-After": "1"})
        return await answer(request)

    with serving(api.app) as url:
        served.url = url
        yield served
