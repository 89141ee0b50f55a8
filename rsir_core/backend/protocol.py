"""Protocol of a backend: describe pictures, and search the rows of an index or a share of them.

A backend may be another process, so each call answers several requests. A request that cannot be answered gets an
exception in place of its answer; it is returned, not raised, because it concerns neither the other requests nor the
backend.
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import pyarrow as pa

from rsir_core.models.regions import DrawnBox
from rsir_core.retrieval.answers import ImagesPage, Match, RowsSummary
from rsir_core.retrieval.density import CellCounts
from rsir_core.retrieval.query import (
    Descriptor,
    ImageName,
    Likeness,
    NearRow,
    Neighbour,
    Query,
    Ranked,
    Ranking,
    SearchedRegions,
)
from rsir_core.retrieval.scored_rows import ScoredPage, ScoredQuery

if TYPE_CHECKING:  # brings the search, which only searchers need
    from rsir_core.retrieval.partition_search import PartitionSearch

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class DescribeRequest(NamedTuple):
    """Ask for the descriptor of a picture, as the models of a version describe it, or of an embedding."""

    version: int
    source: bytes | str | tuple[float, ...]  # an upload, the URI of an indexed image, or an embedding
    box: DrawnBox | None = None  # what is described; None: the key region, by the detector
    preview: bool = False  # whether the picture and all of its objects are wanted too


class CompareRequest(NamedTuple):
    """Ask which pictures are the same as another; see `QueryDescriber.compare`."""

    version: int
    source: bytes | str  # an upload, or the URI of an indexed image
    uris: list[str]


class PartitionRequest(Protocol[T_co]):
    """Ask a question of the rows of a version, which each share of the rows answers for itself."""

    @property
    def version(self) -> int:
        """Version of the index that is asked."""

    def answer(self, rows: "PartitionSearch") -> T_co:
        """Compute the answer of a share of the rows."""


class RankRequest(NamedTuple):
    """Ask for the best `ranking.first` rows for a query; the answer is None where it names a row that is not here."""

    version: int
    query: Query
    ranking: Ranking
    resolve: bool = False  # first look for the row that the query names or equals, and rank by its descriptor

    def answer(self, rows: "PartitionSearch") -> Ranked | None:
        """Rank a share of the rows; None if the query names a row that is not among them."""
        query = rows.as_indexed(self.query) if self.resolve else self.query
        if query is None or isinstance(query, ImageName):
            return None
        query = rows.averaged(query)
        return rows.rank(query, self.ranking, rows.passing(self.ranking.filter))


class NeighboursRequest(NamedTuple):
    """Ask for the rows nearest to a query, by which an open ranking is settled."""

    version: int
    query: Descriptor
    regions: SearchedRegions = "key"

    def answer(self, rows: "PartitionSearch") -> list[Neighbour]:
        """Find the nearest of a share of the rows."""
        return rows.neighbours(self.query, self.regions)


class NearRowsRequest(NamedTuple):
    """Ask for the rows nearest to a query that its feature is averaged with, and how many that are."""

    version: int
    query: Descriptor

    def answer(self, rows: "PartitionSearch") -> tuple[int, list[NearRow]]:
        """Find the nearest of a share of the rows."""
        return rows.served.neighbours, rows.near_rows(self.query)


class ResolveRequest(NamedTuple):
    """Ask for the rows that queries name, or are up to rounding."""

    version: int
    queries: list[Query]

    def answer(self, rows: "PartitionSearch") -> list[Match | None]:
        """Find each query's row in a share of the rows; None if it is not among them."""
        return [rows.resolve(query) for query in self.queries]


class ImagesRequest(NamedTuple):
    """Ask for the images of a page, and all before them; see `PartitionSearch.images`."""

    version: int
    contains: str
    of_class: str | None
    offset: int
    limit: int

    def answer(self, rows: "PartitionSearch") -> ImagesPage:
        """List the first `offset` + `limit` images of a share of the rows."""
        return rows.images(self.contains, self.of_class, self.offset + self.limit)


class RowsRequest(NamedTuple):
    """Ask for the rows of images; see `PartitionSearch.rows_of`."""

    version: int
    image_ids: list[str]

    def answer(self, rows: "PartitionSearch") -> pa.Table:
        """Return the rows of those images that are in a share of the rows."""
        return rows.rows_of(self.image_ids)


class ScoredRequest(NamedTuple):
    """Ask for the first rows by what a scorer gives them; the first time it reads all stored embeddings."""

    version: int
    wanted: ScoredQuery

    def answer(self, rows: "PartitionSearch") -> ScoredPage:
        """Score a share of the rows."""
        return rows.scored(self.wanted)


class SummaryRequest(NamedTuple):
    """Ask for a summary of the rows."""

    version: int

    def answer(self, rows: "PartitionSearch") -> RowsSummary:
        """Return the summary of a share of the rows."""
        return rows.summary


class CellsRequest(NamedTuple):
    """Ask how many footprints lie in each cell of a grid."""

    version: int
    degrees: float  # side of a cell

    def answer(self, rows: "PartitionSearch") -> CellCounts:
        """Count those of a share of the rows."""
        return rows.cells(self.degrees)


class VersionHolder(Protocol):
    """Load versions of an index, and let go of them."""

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Load these versions and let go of others; returns why some cannot be loaded."""


class Describer(VersionHolder, Protocol):
    """Describe pictures with the models that described the rows of a version."""

    async def describe(self, asked: list[DescribeRequest]) -> list[Descriptor | Exception]:
        """Describe each requested picture; an exception in place of a descriptor is that request's."""

    async def compare(self, asked: list[CompareRequest]) -> list[list[Likeness | None] | Exception]:
        """Compare each requested picture with its others; an exception in place of an answer is that request's."""


class Searcher(VersionHolder, Protocol):
    """Search the rows of a version, or a share of them."""

    async def answer(self, asked: list[PartitionRequest[T]]) -> list[T | Exception]:
        """Answer each request from these rows; an exception in place of an answer is that request's."""
