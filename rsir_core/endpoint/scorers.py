"""The routes of learning: a scorer is fitted to a collection's labels, and orders the index by its probabilities."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Final

import orjson
import pyarrow as pa
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12

from rsir_core import schemas
from rsir_core.backend.protocol import ScoredRequest
from rsir_core.backend.router import Router
from rsir_core.backend.versions import LoadedVersions
from rsir_core.endpoint.collections import REFUSALS, CollectionName, LabelText
from rsir_core.endpoint.downloads import FILES, MAX_ROWS, FileFormat, FileWriter
from rsir_core.endpoint.messages import RowJson, plain_rows
from rsir_core.endpoint.reading import JSON, Limits, read_json
from rsir_core.errors import QueryError, ReadOnlyError
from rsir_core.export.rows import ranked_rows
from rsir_core.index.index import Index
from rsir_core.index.labels import read_labels
from rsir_core.learning.archive_scores import learn, read_scorer
from rsir_core.learning.scorer import Scorer, Separation
from rsir_core.retrieval.scored_rows import Order, ScoredPage, ScoredQuery

Threshold = Annotated[float, Query(ge=0, le=1, description="least score")]
MISSING: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "nobody has learned from this collection yet"}}


class LearnRequest(BaseModel):
    """Hold the body that learning takes."""

    model_config = ConfigDict(extra="forbid")

    positive: Annotated[LabelText, Field(description="label of the images to find; all others are not")] = "good"


class EstimateJson(TypedDict):
    """Say how well a scorer does on labelled images that it was not fitted to."""

    average_precision: float
    precision: float | None  # of images that score at least 0.5; null: there were none
    recall: float
    separated_by: Separation  # what no two folds of the cross-validation share


class ScorerJson(TypedDict):
    """Describe a scorer."""

    positive: str
    positives: int
    negatives: int
    estimate: EstimateJson | None  # null: too few labels, or too few places


class ScoredRowJson(RowJson):
    """Hold a row and the probability that a scorer gives it."""

    probability: float  # of its class
    score: float


class ScoredJson(TypedDict):
    """Hold rows by score."""

    version: int
    total: int  # that score at least the threshold
    counts: list[int]  # rows in each of 20 equal intervals of scores from 0 to 1, whatever the threshold
    results: list[ScoredRowJson]


def add_scorers(app: FastAPI, router: Router, versions: LoadedVersions, limits: Limits) -> None:
    """Add the routes to an application."""
    _add_learning(app, versions, limits)
    _add_scored(app, router, versions)


def _add_learning(app: FastAPI, versions: LoadedVersions, limits: Limits) -> None:
    body = {"required": True, "content": {JSON: {"schema": LearnRequest.model_json_schema()}}}
    fitting = asyncio.Lock()  # each may hold 100 MB

    @app.post(
        "/collections/{name}/learn",
        responses={status: REFUSALS[status] for status in (403, 413, 415, 422, 503)},
        openapi_extra={"requestBody": body},
        summary="Fit a scorer to the labels of a collection, and keep it there",
    )
    async def fit(request: Request, name: CollectionName) -> ScorerJson:
        if not limits.max_labels:
            raise ReadOnlyError("this endpoint saves nothing (it was started with --max-labels 0)")
        asked = await read_json(request, LearnRequest, 10_000)
        async with fitting:
            return _json(await asyncio.to_thread(learn, Index(versions.newest.index), name, asked.positive))

    @app.get("/collections/{name}/scorer", responses=MISSING, summary="What was learned from a collection")
    async def scorer(name: CollectionName) -> ScorerJson:
        return _json(await asyncio.to_thread(_kept, versions.newest.index, name))


def _add_scored(app: FastAPI, router: Router, versions: LoadedVersions) -> None:
    files = FileWriter()

    @app.get(
        "/collections/{name}/scored",
        response_model=ScoredJson,
        responses=MISSING,
        summary="Images by the probability that was learned from a collection",
    )
    async def scored(
        name: CollectionName,
        order: Annotated[Order, Query(description="best first, or nearest to 0.5 first, to label next")] = "best",
        threshold: Threshold = 0,
        labelled: Annotated[bool, Query(description="whether labelled images are among them")] = True,
        offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 24,
    ) -> Response:
        """The first time, all stored embeddings are read, which takes a while."""
        version, page = await find(name, ScoredQuery(await of(name), order, threshold), labelled, (offset, limit))
        answer = {"version": version, "total": page.total, "counts": page.counts, "results": plain_rows(page.rows)}
        return Response(orjson.dumps(answer), media_type=JSON)

    @app.get(
        "/collections/{name}/scored/download",
        response_class=FileResponse,
        responses=FILES | MISSING,
        summary=f"All images that score at least a threshold as a file, up to {MAX_ROWS}",
    )
    async def download(name: CollectionName, threshold: Threshold = 0.5, kind: FileFormat = "csv") -> FileResponse:
        async def rows() -> pa.Table:
            _, page = await find(name, ScoredQuery(await of(name), "best", threshold), True, (0, MAX_ROWS))
            if page.total > MAX_ROWS:
                raise QueryError(f"{page.total} images score at least {threshold}; a file takes up to {MAX_ROWS}")
            return ranked_rows(page.rows)

        return await files.respond(rows, f"{name} scored", kind)

    async def of(name: str) -> Scorer:
        return await asyncio.to_thread(_kept, versions.newest.index, name)

    async def find(name: str, wanted: ScoredQuery, labelled: bool, page: tuple[int, int]) -> tuple[int, ScoredPage]:
        offset, limit = page
        async with versions.lend(None) as served:
            if not labelled:
                labels = await asyncio.to_thread(read_labels, Index(served.index), name)
                wanted = wanted._replace(left_out=tuple(labels[schemas.IMAGE_ID].to_pylist()))
            request = ScoredRequest(served.version, wanted._replace(first=offset + limit))
            return served.version, await router.scored(request, offset, limit)


def _kept(index: str, name: str) -> Scorer:
    found = read_scorer(Index(index), name)
    if found is None:
        raise QueryError(
            f"nobody has learned from the collection {name} yet; POST /collections/{name}/learn", "unknown"
        )
    return found


def _json(scorer: Scorer) -> ScorerJson:
    estimate: Any = scorer.estimate and asdict(scorer.estimate)
    return {
        "positive": scorer.positive,
        "positives": scorer.positives,
        "negatives": scorer.negatives,
        "estimate": estimate,
    }
