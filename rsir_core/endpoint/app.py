"""The endpoint as an application: its routes over a router and the versions that it has loaded, and the page."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Final

from fastapi import FastAPI, Query, Response
from starlette.convertors import Convertor, register_url_convertor

from rsir_core.backend.protocol import ImagesRequest
from rsir_core.backend.router import Router
from rsir_core.backend.versions import LoadedVersions
from rsir_core.endpoint.access_log import AccessLog, Record
from rsir_core.endpoint.collections import add_collections
from rsir_core.endpoint.downloads import add_downloads
from rsir_core.endpoint.errors import add_refusals
from rsir_core.endpoint.guard import add_tokens
from rsir_core.endpoint.messages import (
    DensityJson,
    ErrorJson,
    HealthJson,
    ImagesJson,
    IndexJson,
    bounds_json,
    density_json,
)
from rsir_core.endpoint.page_files import ALONE, PageSettings, add_page, page_files
from rsir_core.endpoint.reading import Limits
from rsir_core.endpoint.scorers import add_scorers
from rsir_core.endpoint.search import add_search
from rsir_core.endpoint.tokens import Tokens
from rsir_core.errors import ImageError, QueryError
from rsir_core.imagery.picture import THUMBNAIL_SIDE, shrink
from rsir_core.retrieval.query import ImageName

IMAGE_SIDE: Final = 2048
DRAWN_AT_ONCE: Final = 2  # each reads an image of up to `max_pixels`


class _ImageId(Convertor[str]):
    """Match a path with any characters of an image's name, also line breaks, which `path` refuses."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("image_id", _ImageId())


def build_app(
    router: Router,
    versions: LoadedVersions,
    limits: Limits,
    record: Record,
    tokens: Tokens | None = None,
    page: PageSettings = ALONE,
) -> FastAPI:
    """Build the endpoint and its page.

    Args:
        router: what answers.
        versions: by which it does.
        limits: of queries.
        record: called with each request once it is answered.
        tokens: who may ask; None: everybody.
        page: what the page shows from elsewhere.
    """

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(versions.keep_fresh())
        yield
        task.cancel()
        await asyncio.wait([task])

    app = FastAPI(
        title="rsir",
        description="Remote-sensing image retrieval",
        docs_url=None,
        redoc_url=None,
        lifespan=running,
        responses={status: {"model": ErrorJson} for status in (401, 404, 422, 502, 503)},
    )
    add_search(app, router, versions, limits)
    _add_state(app, router, versions, limits, tokens, page)
    _add_browse(app, router, versions, limits.max_pixels)
    add_collections(app, router, versions, limits)
    add_downloads(app, router, versions, limits)
    add_scorers(app, router, versions, limits)
    if tokens is not None:
        add_tokens(app, tokens, {"/healthz", *page_files()})
    add_page(app)
    app.add_middleware(AccessLog, record=record, headers=page.security_headers)
    add_refusals(app)
    return app


def _add_state(
    app: FastAPI, router: Router, versions: LoadedVersions, limits: Limits, tokens: Tokens | None, page: PageSettings
) -> None:
    probes: dict[int, asyncio.Task[None]] = {}  # under way, by version: strangers may ask, and all get one answer

    @app.get("/healthz", summary="Run a tiny query")
    async def healthz() -> HealthJson:
        async with versions.lend(None) as served:
            version = served.version
            if version not in probes:
                probes[version] = asyncio.create_task(router.probe(served))
                probes[version].add_done_callback(lambda _: probes.pop(version))
            await asyncio.shield(probes[version])
            return {"status": "ok", "version": version}

    @app.get("/index", summary="What is served, and the limits that queries have")
    async def index() -> IndexJson:
        """Describe the newest version that is loaded."""
        async with versions.lend(None) as served:
            found = await router.summary(served.version)
        return {
            "version": served.version,
            "versions": versions.numbers,
            "problem": versions.problem,
            "images": served.images,
            "classes": {name: found.classes.get(name, 0) for name in served.classes},
            "class_names": list(served.classes),
            "columns": found.columns,
            "times": found.times and (found.times[0].isoformat(), found.times[1].isoformat()),
            "bounds": found.bounds and bounds_json(found.bounds),
            "dimensions": served.dimensions,
            "bundle": served.bundle,
            "pca": served.pca,
            "classes_fit": served.classes_fit,
            "has_detector": served.has_detector,
            "regions": served.regions,
            "has_backbone": served.has_backbone,
            "tau": served.tau,
            "open_in": page.open_in,
            "basemap": page.basemap,
            "needs_token": tokens is not None,
            "max_k": limits.max_k,
            "max_bytes": limits.max_bytes,
            "max_pixels": limits.max_pixels,
            "max_labels": limits.max_labels,
        }


def _add_browse(app: FastAPI, router: Router, versions: LoadedVersions, max_pixels: int) -> None:
    drawers = ThreadPoolExecutor(DRAWN_AT_ONCE)  # which goes on with what a client that leaves has asked for

    @app.get("/images", summary="List the index, by image id")
    async def images(
        contains: str = "",
        of_class: Annotated[str | None, Query(alias="class")] = None,
        offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 24,
    ) -> ImagesJson:
        async with versions.lend(None) as served:
            page = await router.images(ImagesRequest(served.version, contains, of_class, offset, limit))
        return {"total": page.total, "images": page.images.to_pylist()}

    @app.get("/density", summary="Where the index has images: how many footprints in each cell of a grid")
    async def density() -> DensityJson:
        """Count the footprints of the newest version that is loaded, in at most 65 × 65 cells."""
        async with versions.lend(None) as served:
            return density_json(served.version, await router.density(served.version))

    @app.get("/thumbnail/{image_id:image_id}", response_class=Response, summary="A small JPEG of an indexed image")
    async def thumbnail(image_id: str) -> Response:
        return await draw(image_id, lambda uri: _jpeg_of(uri, 0, max_pixels, THUMBNAIL_SIDE))

    @app.get("/image/{image_id:image_id}", response_class=Response, summary="An indexed image as a JPEG")
    async def image(
        image_id: str,
        around: Annotated[
            float,
            Query(ge=0, le=2, description="of a tile: what to add on each side, as a share of its size; black outside"),
        ] = 0,
    ) -> Response:
        """Return an indexed image as a JPEG of at most 2,048 × 2,048 pixels; a larger image is made smaller."""
        return await draw(image_id, lambda uri: _jpeg_of(uri, around, max_pixels, IMAGE_SIDE))

    async def draw(image_id: str, jpeg_of: Callable[[str], bytes]) -> Response:
        async with versions.lend(None) as served:
            (stored,) = await router.resolve(served.version, [ImageName("image_id", image_id)])
        jpeg = await asyncio.get_running_loop().run_in_executor(drawers, _draw, jpeg_of, str(stored.uri))
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


def _jpeg_of(uri: str, around: float, max_pixels: int, side: int) -> bytes:
    from rsir_core.imagery.surroundings import read_surroundings  # noqa: PLC0415 -- brings rasterio

    return shrink(read_surroundings(uri, around, max_pixels), side)


def _draw(jpeg_of: Callable[[str], bytes], uri: str) -> bytes:
    try:
        return jpeg_of(uri)
    except ImageError as error:
        raise QueryError(
            f"the image cannot be shown: {error}", "unreachable" if error.is_refused else "unknown"
        ) from error
