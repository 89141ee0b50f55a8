"""What goes over the wire of the endpoint: the JSON that it takes and the JSON that it gives."""

import json
from typing import Annotated, Any, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12

from rsir_core.errors import QueryError
from rsir_core.regions import Box


def _list(value: Any) -> Any:
    """Form fields are text: a list is JSON there, or separated by commas."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.startswith("[") else [part.strip() for part in value.split(",") if part.strip()]


class SearchRequest(BaseModel):
    """A query by name, or what goes with an uploaded image."""

    model_config = ConfigDict(extra="forbid")

    image_id: Annotated[str | None, Field(description="an image of the index, by its id")] = None
    uri: Annotated[str | None, Field(description="an image of the index, by its URI")] = None
    k: Annotated[int, Field(ge=1, description="how many results")] = 20
    classes: Annotated[
        Annotated[list[str], Field(min_length=1)] | None,
        BeforeValidator(_list),
        Field(description="only results of these classes; in a form a JSON list, or comma-separated"),
    ] = None
    box: Annotated[
        tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None,
        BeforeValidator(_list),
        Field(description="x0, y0, x1, y1 in pixels: the object to centre the key region on, not the detector's"),
    ] = None
    preview: Annotated[bool, Field(description="send back, as a data URI, the picture that was described")] = False
    bbox: Annotated[Any, Field(description="footprint filter; refused by an index without footprints")] = None
    start: Annotated[Any, Field(description="time filter; refused by an index without times")] = None
    end: Annotated[Any, Field(description="time filter; refused by an index without times")] = None

    @model_validator(mode="after")
    def _refuse_missing_columns(self) -> "SearchRequest":
        for name, column in (("bbox", "footprint"), ("start", "time"), ("end", "time")):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} cannot filter, because this index has no {column} column; leave it out")
        return self

    @property
    def given_box(self) -> Box | None:
        """The box as one."""
        return None if self.box is None else Box(*self.box)


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
        "region": RegionJson,
        "object": ObjectJson | None,  # null: none found, the key region is centred on the image
        "height": int,
        "width": int,
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
    },
)


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


def in_words(error: ValidationError) -> QueryError:
    """Each field that is wrong, with what was given, on one line."""
    lines = []
    for e in error.errors(include_url=False):
        field = ".".join(str(part) for part in e["loc"])
        message = e["msg"].removeprefix("Value error, ")
        lines.append(f"{field}: {message}, got {e['input']!r:.100}" if field else message)
    return QueryError("; ".join(lines))
