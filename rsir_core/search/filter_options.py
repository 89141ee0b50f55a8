"""The filter as users write it, on the command line or in a request, and the types that its texts are parsed into."""

from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json  # unlike json's, it limits nesting

from rsir_core.errors import QueryError

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
MAX_ERRORS: Final = 5  # named in a message
LONGEST: Final = 10_000  # items of a list: each one that is wrong costs time to report


def _list(value: Any) -> Any:
    """Parse the text of a list: JSON, or separated by commas."""
    if not isinstance(value, str):
        return value
    return from_json(value) if value.startswith("[") else [part.strip() for part in value.split(",") if part.strip()]


def _edges(value: Any) -> Any:
    """Parse the text of a bounding box."""
    edges = _list(value)
    if isinstance(edges, list) and len(edges) != 4:
        raise ValueError("it takes west,south,east,north in degrees")
    return edges


def _not_upside_down(bbox: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    _, south, _, north = bbox
    if south > north:
        raise ValueError(f"its south {south:g} lies north of its north {north:g}; give west,south,east,north")
    return bbox


def _simple(corners: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """Check that corners are those of a polygon."""
    from shapely import Polygon  # noqa: PLC0415 -- the command line does without

    if not Polygon(corners).is_valid:
        raise ValueError("the edges of the polygon cross or touch each other; give its corners in order")
    return corners


def _time(value: Any) -> Any:
    """Parse a time by ISO 8601 alone: pydantic's own parser would take 2020 for so many seconds since 1970."""
    try:
        time = datetime.fromisoformat(value.isoformat() if isinstance(value, date) else value)
    except (TypeError, ValueError) as error:
        raise ValueError("it takes a time in ISO 8601, as 2024-01-15 or 2024-01-15T10:00Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


JsonText = BeforeValidator(_list)
Names = Annotated[
    tuple[str, ...],
    Field(min_length=1, max_length=LONGEST),
    JsonText,
    AfterValidator(lambda names: tuple(dict.fromkeys(names))),
]
Time = Annotated[datetime, BeforeValidator(_time)]
Longitude = Annotated[FiniteFloat, Field(ge=-180, le=180)]
Latitude = Annotated[FiniteFloat, Field(ge=-90, le=90)]
Bounds = Annotated[
    tuple[Longitude, Latitude, Longitude, Latitude], BeforeValidator(_edges), AfterValidator(_not_upside_down)
]
Corners = Annotated[
    tuple[tuple[Longitude, Latitude], ...],
    Field(min_length=3, max_length=1000),
    JsonText,
    AfterValidator(_simple),
]
Value = str | int | float | bool | Annotated[list[str | int | float], Field(max_length=LONGEST)]


class FilterOptions(BaseModel):
    """Say which rows are ranked; `Filter.of` turns it into the filter."""

    model_config = ConfigDict(extra="forbid")

    classes: Names | None = Field(default=None, description="only results of these classes, comma-separated or as JSON")
    start: Time | None = Field(
        default=None, description="only images taken at this time (ISO 8601; UTC if it names no zone) or later"
    )
    end: Time | None = Field(
        default=None,
        description="only images taken at this time or earlier; a day alone is its first moment: add T23:59:59",
    )
    bbox: Bounds | None = Field(
        default=None,
        description="only footprints that meet west,south,east,north (degrees; west > east crosses the antimeridian)",
    )
    polygon: Corners | None = Field(
        default=None,
        description="only footprints that meet the polygon of these corners, as JSON: [[longitude, latitude], …]; its "
        "edges are straight in degrees and do not cross the antimeridian",
    )
    where: Annotated[tuple[tuple[str, Operator, Value], ...], JsonText] = Field(
        default=(),
        max_length=20,
        description="only rows for which all of these hold, as JSON: [[column, operator, value], …]",
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise ValueError(f"start: {self.start.isoformat()} is later than the end {self.end.isoformat()}")
        return self


def in_words(error: ValidationError) -> QueryError:
    """Format the first fields that are wrong, with what was given, on one line."""
    lines = []
    for e in error.errors(include_url=False)[:MAX_ERRORS]:
        field = ".".join(str(part) for part in e["loc"])
        message = e["msg"].removeprefix("Value error, ")
        lines.append(f"{field}: {message}, got {e['input']!r:.100}" if field else message)
    if error.error_count() > MAX_ERRORS:
        lines.append(f"and {error.error_count() - MAX_ERRORS} more")
    return QueryError("; ".join(lines))
