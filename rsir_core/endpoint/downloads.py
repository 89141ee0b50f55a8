"""The routes that give files to take away: the results of a search, and a collection."""

import asyncio
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import pyarrow as pa
from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

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


class FileWriter:
    """Answer with rows as a file, which is written to a temporary folder and removed once it is sent."""

    def __init__(self) -> None:
        self._writing = asyncio.Semaphore(CONCURRENT)

    async def respond(self, rows: pa.Table, name: str, kind: Format) -> FileResponse:
        """Write rows, see `write_file`, and answer with the file under a name."""
        async with self._writing:
            folder = await asyncio.to_thread(_write, rows, kind)
        remove = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / f"rows.{kind}"
        return FileResponse(path, media_type=MEDIA_TYPES[kind], filename=f"{name}.{kind}", background=remove)


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
        async with versions.lend(asked.version) as served:
            ranking = Ranking.of(asked, served, asked.offset, asked.drawn_on(served))
            ranked = await Search(router, served, request.state.entry).rank(asked, upload, ranking)
        return await files.respond(ranked_rows(ranked.rows, ranking.offset), "results", kind)

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
        async with versions.lend(None) as served:
            rows = await router.rows(RowsRequest(served.version, labels["image_id"].to_pylist()))
        return await files.respond(labelled_rows(labels, rows), name, kind)


def _write(rows: pa.Table, kind: Format) -> str:
    """Write rows as a file in a new temporary folder; returns the folder."""
    folder = tempfile.mkdtemp()
    try:
        write_file(rows, Path(folder) / f"rows.{kind}", kind)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder
