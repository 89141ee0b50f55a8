"""The JSON that the endpoint gives."""

import base64
from collections.abc import Mapping
from typing import Any, NotRequired

import orjson
import pyarrow as pa
import shapely
from shapely.geometry import mapping
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12

from rsir_core import schemas
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.models.regions import DetectedObject
from rsir_core.retrieval.density import CellCounts
from rsir_core.retrieval.query import Descriptor, Likeness, Ranked, RankedBy, Ranking, no_match_of
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.distance import most_probable


class RegionJson(TypedDict):
    """Hold a crop, in whole pixels."""

    x: int
    y: int
    width: int
    height: int


class BoxJson(TypedDict):
    """Hold an object's edges, in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float


class BoundingBoxJson(TypedDict):
    """Give bounds in degrees; across ±180° xmin > xmax."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float


# Written as calls, because `class` cannot be a field of a class.
ObjectJson = TypedDict("ObjectJson", {"class": str, "score": float, "box": BoxJson})
ImageJson = TypedDict("ImageJson", {"image_id": str, "class": str})
QueryJson = TypedDict(
    "QueryJson",
    {
        "image_id": str | None,  # null: an upload
        "uri": str | None,
        "class": str,
        "probability": float,
        "region": RegionJson | None,
        "object": ObjectJson | None,  # null: none found, the key region is centred on the image
        "objects": list[ObjectJson],  # best first; all of them where `preview` asks for them and the picture is read
        "height": int | None,  # null: nothing was read, as of a ready descriptor
        "width": int | None,
        "notes": str | None,  # what reading the file had to decide
        "class_probabilities": dict[str, float],
        "feature": list[float],
        "unaveraged_feature": list[float] | None,  # null: the index averages no features
        "preview": NotRequired[str],
    },
)
RowJson = TypedDict(
    "RowJson",
    {
        "image_id": str,
        "uri": str,
        "class": str,
        "region": RegionJson,
        "object_class": str | None,
        "object_score": float | None,
        "object_box": BoxJson | None,
        "height": int,
        "width": int,
        "time": str | None,  # acquired, ISO 8601 UTC
        "bbox": BoundingBoxJson | None,
        "geometry": dict[str, Any] | None,  # its outline, GeoJSON
        "crs": str | None,  # of the file
        "window": RegionJson | None,  # of a tile: where in its scene it lies
        "cell": str | None,  # of a tile that is a cell of the global grid: its quadkey
        "covered": float | None,  # of such a tile: share of the cell that has data
    },
)


class ResultJson(RowJson):
    """Hold a row and why it has its rank: its weighted distance is the product of the other three (eq. 6 to 8)."""

    rank: int
    weighted_distance: float
    distance: float
    query_weight: float
    candidate_weight: float
    probability: float
    region_number: int  # 0: its key region was found; from 1 on: the region of so manieth of its objects
    same_picture: NotRequired[Likeness | None]  # with `near_duplicates`: told from pixels; null: it was not looked at


class AnswerJson(TypedDict):
    """Hold the answer to a query: what it was taken for, and the rows nearest to it, best first."""

    version: int
    ranked_by: RankedBy
    least_weight: float  # what `query_weight` and `candidate_weight` are at least: above 0 where `auto` weights
    no_match: bool | None  # whether nothing in the index is like the query, by its nearest rows; null: unknown
    false_match_rate: float | None  # promised share of queries without any image of their class that still match
    false_rejection_rate: float | None  # measured share of indexed images that would be called no match; null: unknown
    query: QueryJson
    results: list[ResultJson]


class ImagesJson(TypedDict):
    """Hold a page of the index's images, and how many there are in all."""

    total: int
    images: list[ImageJson]


class IndexJson(TypedDict):
    """Describe the served index, and the limits that queries have."""

    version: int
    images: int
    classes: dict[str, int]  # images of each
    class_names: list[str]  # in the order of `class_probabilities`
    dimensions: int
    columns: list[str]  # that `where` can ask for
    times: tuple[str, str] | None  # first and last; null: no image has a time
    bounds: BoundingBoxJson | None  # of all footprints; null: no image has one
    versions: list[int]  # that are loaded; others that still exist can be asked for and are loaded then
    problem: str | None  # why a newer version is not served
    bundle: str
    pca: str
    classes_fit: bool  # whether the classes mean something in this archive, so that `auto` may rank by them
    has_detector: bool
    regions: int  # of each image that are searched at most: the key region, and those of objects
    has_backbone: bool  # false: somebody else made the embeddings, and uploads are refused
    tau: float
    open_in: str | None  # address of another viewer, with fields to fill in; null: none is configured
    basemap: (
        str | None
    )  # tiles with {z}, {x} and {y}, or a MapLibre style, for the page's map; null: none is configured
    needs_token: bool  # whether requests without one are refused
    max_k: int
    max_bytes: int
    max_pixels: int
    max_labels: int  # that one request may save; 0: none are saved


class CellJson(TypedDict):
    """Count the footprints in a cell whose south-western corner is given in degrees."""

    west: float
    south: float
    images: int


class DensityJson(TypedDict):
    """Count the footprints of an index by cells of a grid; each counts where its middle is."""

    version: int
    degrees: float | None  # side of a cell; null: there are no footprints
    cells: list[CellJson]


class HealthJson(TypedDict):
    """Report that a tiny query went all the way."""

    status: str
    version: int


class ErrorJson(TypedDict):
    """Say in words what is wrong with a request."""

    detail: str


def refusals(texts: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Describe for /openapi.json what each status of a refusal means."""
    return {status: {"model": ErrorJson, "description": text} for status, text in texts.items()}


def answer_json(served: ServedVersion, ranking: Ranking, ranked: Ranked) -> bytes:
    """Encode an `AnswerJson`."""
    no_match = no_match_of(served, ranking, ranked)
    known = None if no_match is None else served.no_match
    answer: AnswerJson = {
        "version": served.version,
        "ranked_by": ranked.ranked_by,
        "least_weight": ranked.least_weight,
        "no_match": no_match,
        "false_match_rate": known.false_match_rate if known else None,
        "false_rejection_rate": known.false_rejection_rate if known else None,
        "query": _query(served, ranked.query),
        "results": _results(ranking, ranked.rows),
    }
    return orjson.dumps(answer)


def bounds_json(bbox: BoundingBox) -> BoundingBoxJson:
    """Convert bounds."""
    return {"xmin": bbox.west, "ymin": bbox.south, "xmax": bbox.east, "ymax": bbox.north}


def density_json(version: int, found: CellCounts | None) -> DensityJson:
    """Convert counts."""
    if found is None:
        return {"version": version, "degrees": None, "cells": []}
    west, south = found.column * found.degrees - 180, found.row * found.degrees - 90
    places = zip(west.tolist(), south.tolist(), found.images.tolist(), strict=True)
    cells = [CellJson(west=w, south=s, images=n) for w, s, n in places]
    return {"version": version, "degrees": found.degrees, "cells": cells}


def item_collection(ranking: Ranking, ranked: Ranked) -> bytes:
    """Encode the same results as a STAC item collection."""
    from rsir_core.archive.stac import item_of  # noqa: PLC0415 -- brings pystac and rasterio

    features = [item_of(dict(result)) for result in _results(ranking, ranked.rows)]
    return orjson.dumps({"type": "FeatureCollection", "features": features})


def _query(served: ServedVersion, query: Descriptor) -> QueryJson:
    names, region = served.classes, query.region
    name, probability = most_probable(query.class_probabilities, names)
    found: QueryJson = {
        "image_id": query.image_id,
        "uri": query.uri,
        "class": name,
        "probability": probability,
        "region": None
        if region is None
        else RegionJson(x=region.x, y=region.y, width=region.width, height=region.height),
        "object": _object(query.object) if query.object else None,
        "objects": [_object(found) for found in query.objects],
        "height": query.height,
        "width": query.width,
        "notes": query.notes,
        "class_probabilities": dict(zip(names, query.class_probabilities.tolist(), strict=True)),
        "feature": query.feature.tolist(),
        "unaveraged_feature": None if query.unaveraged is None else query.unaveraged.tolist(),
    }
    if query.preview:
        found["preview"] = "data:image/jpeg;base64," + base64.b64encode(query.preview).decode()
    return found


def _results(ranking: Ranking, rows: pa.Table) -> list[ResultJson]:
    """Convert rows (see `Ranked`) to what is encoded; orjson formats their times."""
    results: list[Any] = [{"rank": rank, **row} for rank, row in enumerate(plain_rows(rows), ranking.offset + 1)]
    return results


def plain_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Convert rows to what orjson encodes; outlines become GeoJSON."""
    found: list[dict[str, Any]] = rows.to_pylist()
    for row in found:
        if row[schemas.GEOMETRY] is not None:
            row[schemas.GEOMETRY] = mapping(shapely.from_wkb(row[schemas.GEOMETRY]))
    return found


def _object(found: DetectedObject) -> ObjectJson:
    x0, y0, x1, y1 = (float(edge) for edge in found.box)
    return {"class": found.name, "score": float(found.score), "box": {"x0": x0, "y0": y0, "x1": x1, "y1": y1}}
