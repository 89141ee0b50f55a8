"""Queries, rankings and ranked results."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rsir_core.errors import QueryError
from rsir_core.index.no_match import NEIGHBOURS
from rsir_core.models.regions import DetectedObject, DrawnBox, Region
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.averaging import averaged_query
from rsir_core.search.filters import EVERYTHING, Filter
from rsir_core.search.ranking_options import DistanceName, RankingOptions

SUM_ERROR: Final = 1e-3  # of probabilities, which may have been rounded
WEIGHTED_FROM: Final = 0.8  # mean probability of the query's class among its nearest rows from which `auto` weights
# What weights are at least where `auto` weights, so that probabilities above 0.9 count alike. A class that was not
# trained on is often taken for one other with conviction, and the most confident rows of that would come first.
LEAST_WEIGHT: Final = 0.1
LIGHT_ROWS: Final = 100  # rows, which take a few milliseconds to answer with

Likeness = Literal["identical", "re-encoded", "different"]  # of two pictures, pixel by pixel
SearchedRegions = Literal["key", "objects", "all"]
RankedBy = Literal["weighted_distance", "distance"]


class ImageName(NamedTuple):
    """Name an image of the index by one of the two columns that identify it."""

    column: Literal["image_id", "uri"]
    name: str


@dataclass(frozen=True)
class Descriptor:
    """Hold what an image is ranked by, and how that was made."""

    image_id: str | None  # None, as the URI: an upload
    uri: str | None
    feature: npt.NDArray[np.float32]  # (K,)
    class_probabilities: npt.NDArray[np.float32]  # (C,)
    region: Region | None = None  # the key region; None, as height and width: nothing was read
    objects: tuple[DetectedObject, ...] = ()  # best first: all, where they were asked for, or the representative one
    height: int | None = None  # pixels
    width: int | None = None  # pixels
    notes: str | None = None  # what reading it had to decide
    unaveraged: npt.NDArray[np.float32] | None = None  # (K,), `feature` before it was averaged; None: it was not
    needs_average: bool = False  # whether `feature` is yet to be averaged with its neighbours, as the rows' are
    preview: bytes = b""  # JPEG of what was described; empty: not asked for

    @property
    def first_feature(self) -> npt.NDArray[np.float32]:
        """Return the feature before it was averaged."""
        return self.feature if self.unaveraged is None else self.unaveraged

    @property
    def object(self) -> DetectedObject | None:
        """Return the representative object."""
        return self.objects[0] if self.objects else None

    def check_fits(self, served: ServedVersion) -> None:
        """Check that rows of a version can be ranked by this descriptor.

        Raises:
            QueryError: they cannot.
        """
        for name, given, wanted in (
            ("feature", self.feature, served.dimensions),
            ("unaveraged_feature", self.first_feature, served.dimensions),
            ("class_probabilities", self.class_probabilities, len(served.classes)),
        ):
            if len(given) != wanted:
                raise QueryError(f"{name}: {len(given)} numbers; this index has {wanted}")
        total = self.class_probabilities.sum(dtype=np.float64)
        if served.classes and not abs(total - 1) < SUM_ERROR:
            raise QueryError(f"class_probabilities: they sum to {total:g}; they must sum to 1")


Query = ImageName | Descriptor


class NearRow(NamedTuple):
    """Hold a row that a query's feature is averaged with."""

    distance: float  # Euclidean
    image_id: str
    feature: npt.NDArray[np.float32]  # (K,), averaged


class Neighbour(NamedTuple):
    """Hold a row near a query."""

    distance: float  # Euclidean
    image_id: str
    probability: float  # of the query's class


def without_own(neighbours: Iterable[Neighbour], image_id: str | None) -> list[Neighbour]:
    """Leave out a query's own row, at distance 0; of an upload (None) that is one of the rows that are just there."""
    found = sorted(neighbours)
    own = next((one for one in found if one.distance == 0 and image_id in (None, one.image_id)), None)
    return [one for one in found if one is not own]


@dataclass(frozen=True)
class Ranking:
    """Say which rows are ranked, and which of the best are wanted."""

    k: int
    offset: int = 0  # better ones to leave out
    filter: Filter = EVERYTHING
    near_duplicates: bool = False  # by the plain distance, and none that is farther than re-encoding takes an image
    distance: DistanceName = "auto"  # until it is `settled`
    max_distance: float | None = None  # of the distance that ranks; None: any
    least_weight: float = 0  # what each of the two weights is at least
    of_object: bool = False  # whether the query is an object's region, in place of a key region
    regions: SearchedRegions = "key"
    # Distance of the nearest row from which the nearest ones are returned, as they decide whether there is a match. The
    # ranking carries it because searchers may have loaded a version before its threshold was stored.
    far_from: float = np.inf

    @classmethod
    def of(cls, options: RankingOptions, served: ServedVersion, offset: int = 0, drawn: DrawnBox | None = None) -> Self:
        """Build the ranking that options or a request ask for; `auto` is plain where the classes do not fit.

        Raises:
            QueryError: objects are to be searched, and the index has key regions alone.
        """
        distance = "plain" if options.distance == "auto" and not served.classes_fit else options.distance
        of_object = drawn is not None and drawn.is_object
        if options.regions == "objects" and served.regions == 1:
            raise QueryError(
                "regions: objects; this index has key regions alone: leave it out, or index the archive with --regions"
            )
        regions: SearchedRegions = "all" if of_object else "key"
        if options.regions != "auto":
            regions = options.regions
        ranking = cls(
            options.k, offset, Filter.of(options), options.near_duplicates, distance, options.max_distance,
            of_object=of_object,
            regions="key" if options.near_duplicates else regions,  # copies are of whole images
        )  # fmt: skip
        known = served.no_match
        if known is None or known.distance is None or not ranking.can_match:
            return ranking
        return replace(ranking, far_from=known.distance)

    @property
    def first(self) -> int:
        """Number of best rows to find, of which the first `offset` are skipped."""
        return self.offset + self.k

    @property
    def is_light(self) -> bool:
        """Tell whether a ranking may share a call with others: few rows, and no filter, which reads whole columns."""
        return self.first <= LIGHT_ROWS and self.filter == EVERYTHING

    @property
    def can_match(self) -> bool:
        """Tell whether a query may be said to have no match: the threshold is of key regions, and not of copies."""
        return not (self.near_duplicates or self.of_object or self.regions != "key")

    @property
    def is_open(self) -> bool:
        """Tell whether the order depends on the query's neighbours, see `settled`."""
        return self.distance == "auto" and not self.near_duplicates

    def settled(self, neighbours: Iterable[Neighbour]) -> Self:
        """Replace `auto`: weighted if the nearest rows are probably of the query's class, else plain.

        Where it weights, the weights are at least `LEAST_WEIGHT`.

        Args:
            neighbours: the nearest of all rows, in any order.
        """
        nearest = sorted(neighbours)[:NEIGHBOURS]
        is_probable = bool(nearest) and fmean(neighbour.probability for neighbour in nearest) >= WEIGHTED_FROM
        if not is_probable:
            return replace(self, distance="plain")
        return replace(self, distance="weighted", least_weight=LEAST_WEIGHT)

    @property
    def ranked_by(self) -> RankedBy:
        """Return the column that orders the results of a settled ranking; ties go to the smaller image id."""
        return "distance" if self.near_duplicates or self.distance == "plain" else "weighted_distance"


class Ranked(NamedTuple):
    """Hold the best rows for a query."""

    query: Descriptor  # as it was ranked: of an image of the index, that row's
    rows: pa.Table  # of schema `ranked_rows.RANKED`, best first
    nearest: float  # smallest Euclidean distance, before averaging, among rows that could be ranked; infinite: none
    ranked_by: RankedBy
    neighbours: tuple[Neighbour, ...] = ()  # nearest of the same rows, where `nearest` is as far as `Ranking.far_from`
    least_weight: float = 0  # what each of the two weights is at least

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the rows as an IPC stream: Arrow's own way takes ten times as long for few rows of many columns."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.rows.schema) as writer:
            writer.write_table(self.rows)
        return _ranked, (self.query, sink.getvalue().to_pybytes(), *self[2:])


def _ranked(query: Descriptor, rows: bytes, *others: Any) -> Ranked:
    return Ranked(query, pa.ipc.open_stream(rows).read_all(), *others)


def average(query: Descriptor, near: Iterable[NearRow], count: int) -> Descriptor:
    """Average a query's feature with those of the nearest rows.

    Args:
        query: not averaged yet.
        near: rows near it, in any order, from all shares of the index.
        count: how many of them to take.
    """
    rows = sorted(near, key=lambda row: (row.distance, row.image_id))[:count]
    features = np.array([row.feature for row in rows], np.float32).reshape(-1, len(query.feature))
    feature = averaged_query(query.feature, features)
    return replace(query, feature=feature, unaveraged=query.feature, needs_average=False)


def no_match_of(served: ServedVersion, ranking: Ranking, ranked: Ranked) -> bool | None:
    """Tell whether a query has no match, by its nearest rows.

    None if there is no threshold, no row passed the filter, near duplicates were asked for, or objects are looked for
    or among.
    """
    known = served.no_match
    if known is None or known.distance is None or ranked.nearest == np.inf or not ranking.can_match:
        return None
    if not known.is_too_far(ranked.nearest):
        return False
    near = ranked.neighbours or (Neighbour(ranked.nearest, "", 0),)  # none: the threshold was not known when it began
    distance, _, probability = zip(*near, strict=True)
    return bool(known.rejects(np.array([distance]), np.array([probability], np.float32))[0])
