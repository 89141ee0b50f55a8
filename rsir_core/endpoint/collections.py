"""The routes under `/collections`: labels that people keep in the index."""

import asyncio
from typing import Annotated, Any, Final

from fastapi import FastAPI, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12

from rsir_core import schemas
from rsir_core.backend.router import Router
from rsir_core.backend.versions import LoadedVersions
from rsir_core.endpoint.messages import refusals
from rsir_core.endpoint.reading import JSON, Limits, read_json
from rsir_core.errors import QueryError, ReadOnlyError
from rsir_core.index.index import Index
from rsir_core.index.labels import LABEL, LONGEST, NAME, read_collections, read_labels, save_labels
from rsir_core.retrieval.query import ImageName

MAX_PAGE: Final = 10_000  # labels in one answer
BYTES_PER_LABEL: Final = 5000  # of a request; a file name has up to 4,096
CollectionName = Annotated[str, Path(pattern=NAME, max_length=LONGEST, description="name of the collection")]
LabelText = Annotated[str, StringConstraints(pattern=LABEL, max_length=LONGEST)]
REFUSALS: Final = refusals({
    403: "the index may not be written to, or this endpoint saves no labels",
    404: "an image that is not in the index",
    413: "too many bytes",
    415: "not JSON",
    422: "a name, a label or a number of labels that is not allowed",
    503: "the store fails, or too many queries are under way; try again after the seconds in Retry-After",
})  # fmt: skip


class GivenLabel(BaseModel):
    """Label an image, or withdraw its label."""

    model_config = ConfigDict(extra="forbid")

    image_id: Annotated[str, Field(description="an image of the index")]
    label: Annotated[LabelText | None, Field(description="its label; null withdraws the one that it has")]


class LabelsRequest(BaseModel):
    """Hold the body that saving takes."""

    model_config = ConfigDict(extra="forbid")

    labels: Annotated[list[GivenLabel], Field(min_length=1)]


class CollectionJson(TypedDict):
    """Summarise a collection."""

    name: str
    labels: dict[str, int]  # images of each
    time: str  # of the last change, ISO 8601 UTC


class CollectionsJson(TypedDict):
    """List the collections that have labels, by name."""

    collections: list[CollectionJson]


class LabelJson(TypedDict):
    """Hold the label that an image has now."""

    image_id: str
    uri: str
    label: str
    by: str | None  # whose token labelled it; null: unknown
    time: str  # ISO 8601 UTC


class LabelsJson(TypedDict):
    """Hold labels of a collection by image id, and how many there are in all."""

    total: int
    labels: list[LabelJson]


class SavedJson(TypedDict):
    """Report that labels are saved."""

    saved: int


def add_collections(app: FastAPI, router: Router, versions: LoadedVersions, limits: Limits) -> None:
    """Add the routes to an application."""
    body = {"required": True, "content": {JSON: {"schema": _labels_schema(limits)}}}

    @app.get("/collections", summary="The collections of labels that the index has")
    async def collections() -> CollectionsJson:
        found = await asyncio.to_thread(read_collections, Index(versions.newest.index))
        return {"collections": [{**one._asdict(), "time": one.time.isoformat()} for one in found]}  # type: ignore[typeddict-item]

    @app.get("/collections/{name}", summary="The labels that images of a collection have now, by image id")
    async def labels(
        name: CollectionName,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1000,
    ) -> LabelsJson:
        found = await asyncio.to_thread(read_labels, Index(versions.newest.index), name)
        page = found.slice(offset, limit).drop_columns([schemas.COLLECTION])
        return {"total": len(found), "labels": [row | {"time": row["time"].isoformat()} for row in page.to_pylist()]}

    @app.post(
        "/collections/{name}/labels",
        responses=REFUSALS,
        openapi_extra={"requestBody": body},
        summary="Label images, or withdraw their labels; others may do so at the same time",
    )
    async def save(request: Request, name: CollectionName) -> SavedJson:
        """Append labels; of an image that is given twice, the last counts."""
        if not limits.max_labels:
            raise ReadOnlyError("this endpoint saves no labels (it was started with --max-labels 0)")
        asked = await read_json(request, LabelsRequest, limits.max_labels * BYTES_PER_LABEL)
        if len(asked.labels) > limits.max_labels:
            raise QueryError(f"labels: {len(asked.labels)} at once; this endpoint saves up to {limits.max_labels}")
        given = {one.image_id: one.label for one in asked.labels}
        async with versions.lend(None) as served:
            found = await router.resolve(served.version, [ImageName("image_id", image_id) for image_id in given])
        uris = {str(one.image_id): str(one.uri) for one in found}
        await asyncio.to_thread(save_labels, Index(served.index), name, given, uris, request.state.entry.client)
        return {"saved": len(given)}


def _labels_schema(limits: Limits) -> dict[str, Any]:
    """Describe the body for /openapi.json, without references, which the document would not have."""
    schema = LabelsRequest.model_json_schema()
    given = schema.pop("$defs")["GivenLabel"]
    schema["properties"]["labels"] |= {"items": given, "maxItems": max(limits.max_labels, 1)}
    return schema
