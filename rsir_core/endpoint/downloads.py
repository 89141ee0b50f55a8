"""The routes that give files to take away: the results of a search, and a collection."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import pyarrow as pa
from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from rsir_core.backend.protocol import RowsRequest
from rsir_core.backend.router import Router
from rsir_core.backend.versions import LoadedVersions
from rsir_core.endpoint.collections import CollectionName
from rsir_core.endpoint.reading import Limits, read_search, request_body
from rsir_core.endpoint.search import REFUSALS, Search
from rsir_core.errors import QueryError
from rsir_core.export.formats import MEDIA_TYPES, Format, write_file
from rsir_core.export.rows import labelled_rows, ranked_rows
from rsir_core.index.index import Index
from rsir_core.index.labels import read_labels
from rsir_core.retrieval.query import Ranking

MAX_ROWS: Final = 100_000  # of a file; some 500 bytes each are in memory meanwhile
CONCURRENT: Final = 2  # files that are written at once
Folder = tempfile.TemporaryDirectory[str]
FileFormat = Annotated[Format, Query(alias="format", description="of the file")]
FILES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "the file",
        "content": {
            media_type: {"schema": {"type": "object"} if kind == "geojson" else {"type": "string", "format": "binary"}}
            for kind, media_type in MEDIA_TYPES.items()
        },
    }
}


class TemporaryFileResponse(FileResponse):
    """Send a file of a temporary folder, and remove the folder, also where the client leaves before the end."""

    def __init__(self, folder: Folder, file: str, media_type: str, filename: str) -> None:
        self._folder = folder
        super().__init__(Path(folder.name) / file, media_type=media_type, filename=filename)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file; called by the server."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._folder.cleanup()


class FileWriter:
    """Answer with rows as a file; few at once, since their rows are in memory meanwhile."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(CONCURRENT)

    async def respond(self, find: Callable[[], Awaitable[pa.Table]], name: str, kind: Format) -> FileResponse:
        """Find rows and write them, see `write_file`, once it is their turn; answer with the file under a name."""
        await self._turns.acquire()
        try:
            rows = await find()
            write = asyncio.get_running_loop().run_in_executor(None, _write, rows, kind)
        except BaseException:
            self._turns.release()
            raise
        write.add_done_callback(lambda _: self._turns.release())  # a client that leaves does not end the thread
        try:
            folder = await asyncio.shield(write)
        except asyncio.CancelledError:
            write.add_done_callback(_discard)
            raise
        return TemporaryFileResponse(folder, f"rows.{kind}", MEDIA_TYPES[kind], f"{name}.{kind}")


def _discard(write: asyncio.Future[Folder]) -> None:
    if not write.cancelled() and write.exception() is None:
        write.result().cleanup()


def add_downloads(app: FastAPI, router: Router, versions: LoadedVersions, limits: Limits) -> None:
    """Add the routes to an application."""
    larger, files = replace(limits, max_k=max(limits.max_k, MAX_ROWS)), FileWriter()

    @app.post(
        "/download",
        response_class=FileResponse,
        responses=FILES | REFUSALS,
        openapi_extra={"requestBody": request_body(larger)},
        summary=f"The results of a search as a file, up to {MAX_ROWS}",
    )
    async def download(request: Request, kind: FileFormat = "csv") -> FileResponse:
        """Search as `/search` does; `max_distance` with a large `k` takes all results that are near enough.

        Footprints are in degrees of longitude and latitude (EPSG:4326).
        """
        asked, upload = await read_search(request, larger)

        async def find() -> pa.Table:
            async with versions.lend(asked.version) as served:
                ranking = Ranking.of(asked, served, asked.offset, asked.drawn_on(served))
                ranked = await Search(router, served, request.state.entry).rank(asked, upload, ranking)
            return ranked_rows(ranked.rows, ranking.offset)

        return await files.respond(find, "results", kind)

    @app.get(
        "/collections/{name}/download",
        response_class=FileResponse,
        responses=FILES | {status: REFUSALS[status] for status in (422, 503)},
        summary="A collection as a file: labels, and what the index knows of their images",
    )
    async def collection(name: CollectionName, kind: FileFormat = "csv") -> FileResponse:
        """Return one row per labelled image, by image id; `jobs.finetune_classifier --labels` takes the CSV."""
        labels = await asyncio.to_thread(read_labels, Index(versions.newest.index), name)
        if len(labels) > MAX_ROWS:
            raise QueryError(f"{name} has {len(labels)} labels; a file takes up to {MAX_ROWS}: use `rsir labels`")

        async def find() -> pa.Table:
            async with versions.lend(None) as served:
                rows = await router.rows(RowsRequest(served.version, labels["image_id"].to_pylist()))
            return labelled_rows(labels, rows)

        return await files.respond(find, name, kind)


def _write(rows: pa.Table, kind: Format) -> Folder:
    """Write rows as a file in a new temporary folder; returns the folder."""
    folder = Folder(ignore_cleanup_errors=True)
    try:
        write_file(rows, Path(folder.name) / f"rows.{kind}", kind)
    except BaseException:
        folder.cleanup()
        raise
    return folder
