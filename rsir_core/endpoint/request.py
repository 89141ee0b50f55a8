"""The fields of a request to `/search`, their validation, and the message for invalid ones."""

from typing import Annotated, Final

import numpy as np
from pydantic import Field, FiniteFloat

from rsir_core.errors import QueryError
from rsir_core.models.regions import Box, BoxRole, DrawnBox
from rsir_core.retrieval.query import Descriptor
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.filter_options import LONGEST, JsonText
from rsir_core.search.ranking_options import RankingOptions

Number = FiniteFloat
Coordinate = Annotated[FiniteFloat, Field(ge=-2, le=2)]  # of a difference of unit vectors, along a unit vector
MANY: Final = Field(max_length=LONGEST)
Ids = Annotated[tuple[str, ...], Field(max_length=100)]


class SearchRequest(RankingOptions):
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
    unaveraged_feature: Annotated[
        Annotated[list[Coordinate], MANY] | None,
        JsonText,
        Field(description="that descriptor's feature before it was averaged, where the index averages features"),
    ] = None
    vector: Annotated[
        Annotated[list[Number], MANY] | None,
        JsonText,
        Field(description="an embedding (D numbers) by the model that made the index's, before the PCA"),
    ] = None
    positive: Annotated[Ids, JsonText, Field(description="ids of indexed images that are relevant")] = ()
    negative: Annotated[Ids, JsonText, Field(description="ids of indexed images that are not relevant")] = ()
    box: Annotated[
        tuple[Number, Number, Number, Number] | None,
        JsonText,
        Field(description="x0, y0, x1, y1 in pixels: the object that is looked for, in place of the key region"),
    ] = None
    box_as: Annotated[
        BoxRole,
        Field(
            description="what is described of a box: object (a square around it, with a margin, which finds single "
            "objects), centre (the key region that is centred on it, which finds scenes), or auto (object if the index "
            "has regions of objects, else centre)"
        ),
    ] = "auto"
    same_place: Annotated[
        bool,
        Field(
            description="only what other scenes show of the same cell of the global grid as the indexed tile that is "
            "asked with; the results are in order of their time"
        ),
    ] = False
    offset: Annotated[int, Field(ge=0, description="how many of the best results to skip, for the next page")] = 0
    version: Annotated[int | None, Field(ge=0, description="version of the index to search; default: the newest")] = (
        None
    )
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

    def drawn_on(self, served: ServedVersion) -> DrawnBox | None:
        """Return the box, and what is described of it for a version."""
        return None if self.box is None else DrawnBox.of(Box(*self.box), self.box_as, served.regions)

    def ready_descriptor(self, served: ServedVersion) -> Descriptor:
        """Return `feature` and `class_probabilities`, once they are known to fit the served version.

        Raises:
            QueryError: they do not.
        """
        feature, p = np.array(self.feature, np.float32), np.array(self.class_probabilities, np.float32)
        first = None if self.unaveraged_feature is None else np.array(self.unaveraged_feature, np.float32)
        if first is not None and not served.neighbours:
            raise QueryError("unaveraged_feature: this index averages no features; leave it out")
        descriptor = Descriptor(None, None, feature, p, unaveraged=first)
        descriptor.check_fits(served)
        return descriptor
