"""The searchers' answers put together: as if one of them held all rows."""

import heapq
from abc import ABC, abstractmethod
from collections import Counter
from itertools import islice
from typing import Any, NamedTuple

import orjson

from jobs.serving.answer import Holdings, Ranked, Recognised
from jobs.serving.messages import BoundingBoxJson, ImagesJson
from jobs.serving.query import Descriptor, Ranking, ServedVersion
from rsir_core.errors import QueryError
from rsir_core.models.regions import Box
from rsir_core.retrieval.near_duplicates import Kind


class SearchResult(NamedTuple):
    """Hold the rows that a query finds."""

    results: list[bytes]  # each as JSON
    nearest: float  # see `Ranked`, of all shares and whatever page


class Backend(ABC):
    """Describe and rank queries by one served version, wherever its rows are."""

    edition: ServedVersion
    parts: int

    @abstractmethod
    async def _each(self, method: str, *args: Any) -> list[Any]:
        """Call a method of `Answerer` for each share of the rows."""

    @abstractmethod
    async def describe(self, source: bytes | str, box: Box | None, preview: bool) -> Descriptor:
        """Describe an upload, or the indexed image behind a URI."""

    @abstractmethod
    async def compare(self, source: bytes | str, uris: list[str]) -> list[Kind | None]:
        """Compare pictures; see `QueryDescriber.compare`."""

    async def compared(self, source: bytes | str, found: SearchResult) -> SearchResult:
        """Add to each result what its picture is to the query's."""
        if not found.results:
            return found
        kinds = await self.compare(source, [orjson.loads(result)["uri"] for result in found.results])
        said = zip(kinds, found.results, strict=True)
        return found._replace(results=[b'{"same_picture":%s,%s' % (orjson.dumps(kind), row[1:]) for kind, row in said])

    async def stored(self, image_ids: list[str], uris: list[str]) -> list[Descriptor]:
        """Find indexed images by id and by URI, in this order.

        Raises:
            QueryError: 404, one of them is not in the index.
        """
        found: dict[str, Descriptor] = {}
        for part in await self._each("stored", image_ids, uris):
            found |= part
        for kind, names in (("image_id", image_ids), ("uri", uris)):
            for name in names:
                if name not in found:
                    raise _unknown(kind, name)
        return [found[name] for name in (*image_ids, *uris)]

    async def recognised(self, query: Descriptor) -> Descriptor:
        """Return the query, with the descriptor of the row that it is, where it is one up to rounding."""
        near: list[Recognised] = [found for found in await self._each("recognise", query) if found is not None]
        return min(near, key=lambda found: (found.distance, found.image_id)).query if near else query

    async def rank(self, query: Descriptor, ranking: Ranking) -> SearchResult:
        """Rank the best rows for a query, best first, without those to leave out."""
        return _ranked(await self._each("rank", query, ranking), ranking)

    async def rank_stored(
        self, image_id: str | None, uri: str | None, ranking: Ranking
    ) -> tuple[Descriptor, SearchResult]:
        """Find an indexed image and rank its best rows; with one share, in one call.

        Raises:
            QueryError: 404, it is not in the index.
        """
        if self.parts > 1:
            (query,) = await self.stored([image_id] if image_id is not None else [], [uri] if uri is not None else [])
            return query, await self.rank(query, ranking)
        (found,) = await self._each("rank_stored", image_id, uri, ranking)
        if found is None:
            raise _unknown("image_id", image_id) if image_id is not None else _unknown("uri", uri)
        return found[0], _ranked([found[1]], ranking)

    async def rank_described(self, query: Descriptor, ranking: Ranking) -> tuple[Descriptor, SearchResult]:
        """Recognise an upload (see `recognised`) and rank its best rows; with one share, in one call."""
        if self.parts > 1:
            query = await self.recognised(query)
            return query, await self.rank(query, ranking)
        ((query, ranked),) = await self._each("rank_described", query, ranking)
        return query, _ranked([ranked], ranking)

    async def images(self, contains: str, of_class: str | None, offset: int, limit: int) -> ImagesJson:
        """List a page of the images, by id, whose id contains a text (whatever its case), of one class or of all.

        Raises:
            QueryError: 404, a class that the index does not know.
        """
        if of_class is not None and of_class not in self.edition.classes:
            raise QueryError(f"class: {of_class} unknown; known are {', '.join(self.edition.classes)}", 404)
        parts: list[ImagesJson] = await self._each("images", contains, of_class, offset + limit)
        merged = heapq.merge(*(part["images"] for part in parts), key=lambda image: image["image_id"])
        return {
            "total": sum(part["total"] for part in parts),
            "images": list(islice(merged, offset, offset + limit)),
        }

    async def held(self) -> Holdings:
        """Summarise what all shares hold."""
        parts: list[Holdings] = await self._each("held")
        counts = sum((Counter(part.classes) for part in parts), Counter[str]())
        times = [time for part in parts if part.times for time in part.times]
        return Holdings(
            {name: counts[name] for name in self.edition.classes},
            parts[0].columns,
            (min(times), max(times)) if times else None,
            _span([part.bounds for part in parts if part.bounds]),
        )

    async def probe(self) -> None:
        """Run a tiny query; raises where it fails."""
        await self._each("probe")


def _ranked(parts: list[Ranked], ranking: Ranking) -> SearchResult:
    """Merge the best of all shares, each of which is in order; ties go to the smaller image id, as in each of them."""
    merged = heapq.merge(*(zip(part.keys, part.encoded, strict=True) for part in parts))
    best = enumerate(islice(merged, ranking.offset, ranking.offset + ranking.k), ranking.offset + 1)
    results = [b'{"rank":%d,%s' % (rank, encoded[1:]) for rank, (_, encoded) in best]
    return SearchResult(results, min(part.nearest for part in parts))


def _span(bounds: list[BoundingBoxJson]) -> BoundingBoxJson | None:
    if not bounds:
        return None
    return BoundingBoxJson(
        xmin=min(b["xmin"] for b in bounds),
        ymin=min(b["ymin"] for b in bounds),
        xmax=max(b["xmax"] for b in bounds),
        ymax=max(b["ymax"] for b in bounds),
    )


def _unknown(kind: str, name: str | None) -> QueryError:
    return QueryError(f"{kind} {name!r} is not in the index; upload the image, or name one that is", 404)
