"""What goes over the wire of the endpoint: the JSON that it takes and the JSON that it gives."""

import base64
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NotRequired

import numpy as np
import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import from_json  # unlike json's, it has an end to nesting
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12

from jobs.serving.query import Descriptor, DistanceName, Edition, Verdict
from rsir_core.detector import DetectedObject
from rsir_core.errors import QueryError
from rsir_core.filters import Filter, Operator
from rsir_core.footprint import Footprint
from rsir_core.regions import Box
from rsir_core.stac import item_of


def _list(value: Any) -> Any:
    """Form fields are text: a list is JSON there, or separated by commas."""
    if not isinstance(value, str):
        return value
    return from_json(value) if value.startswith("[") else [part.strip() for part in value.split(",") if part.strip()]


def _utc(time: datetime | None) -> datetime | None:
    return time if time is None or time.tzinfo else time.replace(tzinfo=UTC)


JsonText = BeforeValidator(_list)
Number = FiniteFloat
Coordinate = Annotated[FiniteFloat, Field(ge=-2, le=2)]  # of a difference of unit vectors, along a unit vector
Ids = Annotated[list[str], Field(max_length=100)]
Longitude = Annotated[FiniteFloat, Field(ge=-180, le=180)]
Latitude = Annotated[FiniteFloat, Field(ge=-90, le=90)]


class SearchRequest(BaseModel):
    """What to rank the index against, and which of its rows."""

    model_config = ConfigDict(extra="forbid")

    image_id: Annotated[str | None, Field(description="an image of the index, by its id")] = None
    uri: Annotated[str | None, Field(description="an image of the index, by its URI")] = None
    feature: Annotated[
        list[Coordinate] | None, JsonText, Field(description="a ready descriptor's feature (K numbers)")
    ] = None
    class_probabilities: Annotated[
        list[Annotated[Number, Field(ge=0, le=1)]] | None,
        JsonText,
        Field(description="that descriptor's probabilities, in the order of the bundle's classes"),
    ] = None
    positive: Annotated[Ids, JsonText, Field(description="images of the index that are what is looked for")] = []
    negative: Annotated[Ids, JsonText, Field(description="images of the index that are not")] = []
    box: Annotated[
        tuple[Number, Number, Number, Number] | None,
        JsonText,
        Field(description="x0, y0, x1, y1 in pixels: the object to centre the key region on, not the detector's"),
    ] = None
    k: Annotated[int, Field(ge=1, description="how many results")] = 20
    offset: Annotated[int, Field(ge=0, description="how many better ones to leave out: the next page")] = 0
    version: Annotated[int | None, Field(ge=0, description="of the index, if not the newest; it must exist")] = None
    classes: Annotated[
        Annotated[list[str], Field(min_length=1)] | None,
        JsonText,
        Field(description="only results of these classes; in a form a JSON list, or comma-separated"),
    ] = None
    bbox: Annotated[
        tuple[Longitude, Latitude, Longitude, Latitude] | None,
        JsonText,
        Field(description="only footprints that meet west, south, east, north (degrees; west > east: over ±180°)"),
    ] = None
    start: Annotated[
        datetime | None, Field(description="only images taken at this time or later (UTC if not said)")
    ] = None
    end: Annotated[datetime | None, Field(description="only images taken at this time or earlier")] = None
    where: Annotated[
        list[tuple[str, Operator, str | int | float | bool | list[str | int | float]]],
        JsonText,
        Field(description="only rows for which all of these hold: [[column, operator, value], …]", max_length=20),
    ] = []
    near_duplicates: Annotated[
        bool, Field(description="only images that are the query's up to its encoding, by the plain distance")
    ] = False
    distance: Annotated[
        DistanceName,
        Field(description="what ranks; auto: the weighted distance where the query's class is sure, else the plain"),
    ] = "weighted"
    preview: Annotated[
        bool, Field(description="send back, as a data URI, the picture that was described, and all of its objects")
    ] = False

    @property
    def is_one_stored_image(self) -> bool:
        """Whether the query is an indexed image as it is."""
        named = self.image_id is not None or self.uri is not None
        return named and self.box is None and not self.has_examples

    @property
    def has_examples(self) -> bool:
        """Whether images of the index are marked as good or bad."""
        return bool(self.positive or self.negative)

    @property
    def given_box(self) -> Box | None:
        """The box as one."""
        return None if self.box is None else Box(*self.box)

    def ready_descriptor(self, edition: Edition) -> Descriptor:
        """`feature` and `class_probabilities`, once they are known to fit an edition.

        Raises:
            QueryError: 422, they do not.
        """
        feature, p = np.array(self.feature, np.float32), np.array(self.class_probabilities, np.float32)
        for name, given, wanted in (
            ("feature", feature, edition.dimensions),
            ("class_probabilities", p, len(edition.classes)),
        ):
            if len(given) != wanted:
                raise QueryError(f"{name}: {len(given)} numbers; this index has {wanted}")
        if abs(p.sum(dtype=np.float64) - 1) >= 1e-3:
            raise QueryError(f"class_probabilities: they sum to {p.sum():g}; they must sum to 1")
        return Descriptor(None, None, feature, p)

    @property
    def filter(self) -> Filter:
        """Which rows are ranked."""
        bbox = None if self.bbox is None else Footprint(*self.bbox)
        classes = None if self.classes is None else tuple(self.classes)
        return Filter(classes, _utc(self.start), _utc(self.end), bbox, tuple(self.where))


class RegionJson(TypedDict):
    """A crop, in whole pixels."""

    x: int
    y: int
    width: int
    height: int


class BoxJson(TypedDict):
    """An object's edges, in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float


class FootprintJson(TypedDict):
    """What a footprint spans, in degrees; across ±180° xmin > xmax."""

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
        "bbox": FootprintJson | None,
        "geometry": dict[str, Any] | None,  # its outline, GeoJSON
        "crs": str | None,  # of the file
        "window": RegionJson | None,  # of a tile: where in its scene it lies
    },
)


ROW: Final = tuple(RowJson.__annotations__)


class ResultJson(RowJson):
    """A row, and why it has its rank: the weighted distance is the product of the other three (paper eq. 6 to 8)."""

    rank: int
    weighted_distance: float
    distance: float
    query_weight: float
    candidate_weight: float
    probability: float


class AnswerJson(TypedDict):
    """The answer to a query: what it was taken for, and the rows nearest to it, best first."""

    version: int
    ranked_by: Literal["weighted_distance", "distance"]
    no_match: bool | None  # nothing here is like the query; null: this index cannot say so
    false_match_rate: float | None  # of queries that have nothing like them here, the share that is told otherwise
    query: QueryJson
    results: list[ResultJson]


class ImagesJson(TypedDict):
    """A page of the index's images, and how many there are in all."""

    total: int
    images: list[ImageJson]


class IndexJson(TypedDict):
    """What is served, and the limits that queries have."""

    version: int
    images: int
    classes: dict[str, int]  # images of each
    dimensions: int
    columns: list[str]  # that `where` can ask for
    times: tuple[str, str] | None  # first and last; null: no image has a time
    bounds: FootprintJson | None  # of all footprints; null: no image has one
    versions: list[int]  # that are loaded; others that still exist can be asked for and are loaded then
    problem: str | None  # why a newer version is not served
    bundle: str
    pca: str
    has_detector: bool
    tau: float
    max_k: int
    max_bytes: int
    max_pixels: int


class HealthJson(TypedDict):
    """A tiny query went all the way."""

    status: str
    version: int


class ErrorJson(TypedDict):
    """What is wrong with a request, in words."""

    detail: str


def answer_json(edition: Edition, query: Descriptor, results: list[bytes], verdict: Verdict) -> bytes:
    """An `AnswerJson` as it is sent; the results are encoded already."""
    names, region = edition.classes, query.region
    top = int(query.class_probabilities.argmax())
    said: QueryJson = {
        "image_id": query.image_id,
        "uri": query.uri,
        "class": names[top],
        "probability": float(query.class_probabilities[top]),
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
    }
    if query.preview:
        said["preview"] = "data:image/jpeg;base64," + base64.b64encode(query.preview).decode()
    head = {
        "version": edition.version,
        "ranked_by": "weighted_distance" if verdict.weighted else "distance",
        "no_match": verdict.no_match,
        "false_match_rate": verdict.false_match_rate,
        "query": said,
    }
    return b'%s,"results":[%s]}' % (orjson.dumps(head)[:-1], b",".join(results))


def item_collection(results: list[bytes]) -> bytes:
    """The same results as a STAC item collection."""
    features = [item_of(orjson.loads(result)) for result in results]
    return orjson.dumps({"type": "FeatureCollection", "features": features})


def _object(found: DetectedObject) -> ObjectJson:
    x0, y0, x1, y1 = (float(edge) for edge in found.box)
    return {"class": found.name, "score": float(found.score), "box": {"x0": x0, "y0": y0, "x1": x1, "y1": y1}}


def in_words(error: ValidationError) -> QueryError:
    """Each field that is wrong, with what was given, on one line."""
    lines = []
    for e in error.errors(include_url=False):
        field = ".".join(str(part) for part in e["loc"])
        message = e["msg"].removeprefix("Value error, ")
        lines.append(f"{field}: {message}, got {e['input']!r:.100}" if field else message)
    return QueryError("; ".join(lines))
