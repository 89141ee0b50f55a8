"""The fields of a request to `/search`, their validation, and the message for invalid ones."""

from typing import Annotated, Final

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError

from rsir_core.errors import QueryError
from rsir_core.models.regions import Box
from rsir_core.retrieval.near_duplicates import COMPARED
from rsir_core.retrieval.query import Descriptor, DistanceName
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.filter_options import LONGEST, FilterOptions, JsonText
from rsir_core.search.filters import Filter

Number = FiniteFloat
Coordinate = Annotated[FiniteFloat, Field(ge=-2, le=2)]  # of a difference of unit vectors, along a unit vector
MANY: Final = Field(max_length=LONGEST)
MAX_ERRORS: Final = 5  # named in a message
Ids = Annotated[tuple[str, ...], Field(max_length=100)]


class SearchRequest(FilterOptions):
    """Say what to rank the index against, and which of its rows."""

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
    positive: Annotated[Ids, JsonText, Field(description="ids of indexed images that are relevant")] = ()
    negative: Annotated[Ids, JsonText, Field(description="ids of indexed images that are not relevant")] = ()
    box: Annotated[
        tuple[Number, Number, Number, Number] | None,
        JsonText,
        Field(
            description="x0, y0, x1, y1 in pixels: the object to centre the key region on, in place of the detector's"
        ),
    ] = None
    k: Annotated[int, Field(ge=1, description="how many results")] = 20
    offset: Annotated[int, Field(ge=0, description="how many of the best results to skip, for the next page")] = 0
    version: Annotated[int | None, Field(ge=0, description="version of the index to search; default: the newest")] = (
        None
    )
    near_duplicates: Annotated[
        bool,
        Field(
            description="only images within Euclidean distance 0.2, where copies saved or scaled anew usually lie; "
            f"look-alikes can lie there too, so `same_picture` compares the pixels of the first {COMPARED}"
        ),
    ] = False
    distance: Annotated[
        DistanceName,
        Field(
            description="the order: weighted (distance × class weights), plain (Euclidean), or auto (weighted if the "
            "query's class is at least 99 % probable, else plain)"
        ),
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
        """Build the filter for the rows that are ranked."""
        return Filter.of(self)


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
