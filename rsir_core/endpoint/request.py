"""What a request to `/search` may ask for, as it comes over the wire, and what is said of one that is wrong."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import from_json  # unlike json's, it has an end to nesting

from rsir_core.errors import QueryError
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.models.regions import Box
from rsir_core.retrieval.near_duplicates import COMPARED
from rsir_core.retrieval.query import Descriptor, DistanceName
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.filters import Filter, Operator


def _list(value: Any) -> Any:
    """Parse a list in a form field, whose values are text: JSON, or separated by commas."""
    if not isinstance(value, str):
        return value
    return from_json(value) if value.startswith("[") else [part.strip() for part in value.split(",") if part.strip()]


def _utc(time: datetime | None) -> datetime | None:
    return time if time is None or time.tzinfo else time.replace(tzinfo=UTC)


def _time(value: Any) -> Any:
    """Parse a time by ISO 8601 alone: pydantic's own parser would take 2020 for so many seconds since 1970."""
    if value is None or isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError("it takes a time in ISO 8601, as 2024-01-15 or 2024-01-15T10:00Z") from error


JsonText = BeforeValidator(_list)
Time = Annotated[datetime, BeforeValidator(_time)]
Number = FiniteFloat
Coordinate = Annotated[FiniteFloat, Field(ge=-2, le=2)]  # of a difference of unit vectors, along a unit vector
LONGEST: Final = 10_000  # list: each part that is wrong costs time to be told
MANY: Final = Field(max_length=LONGEST)
TOLD: Final = 5  # of what is wrong
Ids = Annotated[list[str], Field(max_length=100)]
Longitude = Annotated[FiniteFloat, Field(ge=-180, le=180)]
Latitude = Annotated[FiniteFloat, Field(ge=-90, le=90)]


class SearchRequest(BaseModel):
    """Say what to rank the index against, and which of its rows."""

    model_config = ConfigDict(extra="forbid")

    image_id: Annotated[str | None, Field(description="an image of the index, by its id")] = None
    uri: Annotated[str | None, Field(description="an image of the index, by its URI")] = None
    feature: Annotated[
        Annotated[list[Coordinate], MANY] | None,
        JsonText,
        Field(description="a ready descriptor's feature (K numbers)"),
    ] = None
    class_probabilities: Annotated[
        Annotated[list[Annotated[Number, Field(ge=0, le=1)]], MANY] | None,
        JsonText,
        Field(description="that descriptor's probabilities, in the order of `class_names` of /index"),
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
        Annotated[list[str], Field(min_length=1, max_length=LONGEST)] | None,
        JsonText,
        Field(description="only results of these classes; in a form a JSON list, or comma-separated"),
    ] = None
    bbox: Annotated[
        tuple[Longitude, Latitude, Longitude, Latitude] | None,
        JsonText,
        Field(description="only footprints that meet west, south, east, north (degrees; west > east: over ±180°)"),
    ] = None
    start: Annotated[Time | None, Field(description="only images taken at this time or later (UTC if not said)")] = None
    end: Annotated[
        Time | None,
        Field(description="only images taken at this time or earlier; a day alone is its first moment: add T23:59:59"),
    ] = None
    where: Annotated[
        list[tuple[str, Operator, str | int | float | bool | Annotated[list[str | int | float], MANY]]],
        JsonText,
        Field(description="only rows for which all of these hold: [[column, operator, value], …]", max_length=20),
    ] = []
    near_duplicates: Annotated[
        bool,
        Field(
            description="only images as near as a copy encoded or scaled anew (0.2), by the plain distance; as "
            f"look-alikes can be, the pixels of the first {COMPARED} tell (`same_picture`)"
        ),
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
        """Tell whether the query is an indexed image as it is."""
        named = self.image_id is not None or self.uri is not None
        return named and self.box is None and not self.has_examples

    @property
    def has_examples(self) -> bool:
        """Tell whether images of the index are marked as good or bad."""
        return bool(self.positive or self.negative)

    @property
    def given_box(self) -> Box | None:
        """The box as one."""
        return None if self.box is None else Box(*self.box)

    def ready_descriptor(self, served: ServedVersion) -> Descriptor:
        """Return `feature` and `class_probabilities`, once they are known to fit the served version.

        Raises:
            QueryError: they do not.
        """
        feature, p = np.array(self.feature, np.float32), np.array(self.class_probabilities, np.float32)
        for name, given, wanted in (
            ("feature", feature, served.dimensions),
            ("class_probabilities", p, len(served.classes)),
        ):
            if len(given) != wanted:
                raise QueryError(f"{name}: {len(given)} numbers; this index has {wanted}")
        if abs(p.sum(dtype=np.float64) - 1) >= 1e-3:
            raise QueryError(f"class_probabilities: they sum to {p.sum():g}; they must sum to 1")
        return Descriptor(None, None, feature, p)

    @property
    def filter(self) -> Filter:
        """Build the filter for the rows that are ranked.

        Raises:
            QueryError: none can be: south of its north end, or after its end.
        """
        bbox = None if self.bbox is None else BoundingBox(*self.bbox)
        if bbox is not None and bbox.south > bbox.north:
            raise QueryError(f"bbox: its south {bbox.south:g} lies north of its north {bbox.north:g}; give W, S, E, N")
        start, end = _utc(self.start), _utc(self.end)
        if start is not None and end is not None and start > end:
            raise QueryError(f"start: {start.isoformat()} is later than the end {end.isoformat()}")
        classes = None if self.classes is None else tuple(self.classes)
        return Filter(classes, start, end, bbox, tuple(self.where))


def in_words(error: ValidationError) -> QueryError:
    """Format the first fields that are wrong, with what was given, on one line."""
    lines = []
    for e in error.errors(include_url=False)[:TOLD]:
        field = ".".join(str(part) for part in e["loc"])
        message = e["msg"].removeprefix("Value error, ")
        lines.append(f"{field}: {message}, got {e['input']!r:.100}" if field else message)
    if error.error_count() > TOLD:
        lines.append(f"and {error.error_count() - TOLD} more")
    return QueryError("; ".join(lines))
