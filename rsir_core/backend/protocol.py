"""What a backend does: describe pictures, and search the rows of an index, or a share of them.

A backend may be another process. So each call answers several requests, and an exception in place of an answer is that
request's alone: it is returned and not raised, as what cannot be answered is no fault of the backend.
"""

from typing import NamedTuple, Protocol, TypeVar

from rsir_core.models.regions import Box
from rsir_core.retrieval.near_duplicates import Kind
from rsir_core.retrieval.partition_search import ImagesPage, Match, PartitionSearch, RowsSummary
from rsir_core.retrieval.query import Descriptor, ImageName, Query, Ranked, Ranking

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class DescribeRequest(NamedTuple):
    """Ask for the descriptor of a picture, as the models of a version describe it."""

    version: int
    source: bytes | str  # an upload, or the URI of an indexed image
    box: Box | None = None  # the object to centre the key region on; None: the detector's
    preview: bool = False  # whether the picture and all of its objects are wanted too


class CompareRequest(NamedTuple):
    """Ask which pictures are the same as another; see `QueryDescriber.compare`."""

    version: int
    source: bytes | str  # an upload, or the URI of an indexed image
    uris: list[str]


class PartitionRequest(Protocol[T_co]):
    """What is asked of the rows of a version, and how each share of them answers."""

    @property
    def version(self) -> int:
        """Return the version of the index."""

    def answer(self, rows: PartitionSearch) -> T_co:
        """Return the answer of a share of the rows."""


class RankRequest(NamedTuple):
    """Ask for the best `ranking.first` rows for a query; the answer is None where it names a row that is not here."""

    version: int
    query: Query
    ranking: Ranking
    resolve: bool = False  # first look for the row that the query names or equals, and rank by its descriptor

    def answer(self, rows: PartitionSearch) -> Ranked | None:
        """See the class."""
        match = rows.resolve(self.query) if self.resolve else None
        query = self.query if match is None else match.query
        if isinstance(query, ImageName):
            return None
        return rows.rank(query, self.ranking, rows.passing(self.ranking.filter))


class ResolveRequest(NamedTuple):
    """Ask for the rows that queries name, or are up to rounding."""

    version: int
    queries: list[Query]

    def answer(self, rows: PartitionSearch) -> list[Match | None]:
        """See the class."""
        return [rows.resolve(query) for query in self.queries]


class ImagesRequest(NamedTuple):
    """Ask for the images of a page, and all before them; see `PartitionSearch.images`."""

    version: int
    contains: str
    of_class: str | None
    offset: int
    limit: int

    def answer(self, rows: PartitionSearch) -> ImagesPage:
        """See the class."""
        return rows.images(self.contains, self.of_class, self.offset + self.limit)


class SummaryRequest(NamedTuple):
    """Ask for a summary of the rows."""

    version: int

    def answer(self, rows: PartitionSearch) -> RowsSummary:
        """See the class."""
        return rows.summary


class VersionHolder(Protocol):
    """Whatever loads versions of an index."""

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Load these versions and let go of others; returns why some cannot be loaded."""


class Describer(VersionHolder, Protocol):
    """What describes pictures as the rows of a version were described."""

    async def describe(self, asked: list[DescribeRequest]) -> list[Descriptor | Exception]:
        """Describe pictures."""

    async def compare(self, asked: list[CompareRequest]) -> list[list[Kind | None] | Exception]:
        """Compare pictures."""


class Searcher(VersionHolder, Protocol):
    """What searches the rows of a version, or a share of them."""

    async def answer(self, asked: list[PartitionRequest[T]]) -> list[T | Exception]:
        """Answer from its rows."""
