"""The ingress, and the describers and searchers as it reaches them.

A call of another process costs milliseconds of CPU on both sides, as much as a search or a tenth of a description; so
what is asked at the same time goes in one call.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from jobs.serving.app import EndpointSettings, build_app
from jobs.serving.batch import Batcher
from jobs.serving.gather import Backend
from jobs.serving.library import Library
from jobs.serving.metrics import RequestMetrics
from jobs.serving.query import Descriptor, Ranking, ServedVersion
from jobs.serving.reading import Limits
from jobs.serving.replicas import BATCH, Call, CompareRequest, Refusal, ToDescribe
from jobs.serving.tokens import Tokens
from rsir_core.errors import QueryError
from rsir_core.models.regions import Box
from rsir_core.retrieval.near_duplicates import Kind

SMALL: Final = 1_000_000  # bytes of an upload that is decoded in about the time that its description takes
LIGHT: Final = frozenset({"stored", "recognise", "rank", "rank_stored", "rank_described"})

Handle = DeploymentHandle[Any]


class DeployedFleet:
    """Call all replicas of the describer and of the searchers.

    Args:
        describer: see `DescriberReplica`.
        searchers: see `SearcherReplica`, of each share of the rows.
        at_once: calls under way of the describer and of each searcher, above which what may wait for others does.
    """

    def __init__(self, describer: Handle, searchers: Sequence[Handle], at_once: tuple[int, int]) -> None:
        self._describer, self._searchers = describer, searchers
        self._descriptions = Batcher[ToDescribe, Any](describer.describe.remote, BATCH, at_once[0])
        self._calls = [Batcher[Call, Any](searcher.call.remote, BATCH, at_once[1]) for searcher in searchers]

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Let all replicas hold these versions; see `Fleet.hold`. One that starts meanwhile loads what it needs."""
        told = [handle.broadcast("hold", versions) for handle in (self._describer, *self._searchers)]
        try:
            answers = await asyncio.gather(*(response.results_async(return_exceptions=True) for response in told))
        except DeploymentUnavailableError:  # the endpoint is being ended, the ingress last
            return {}
        refused: dict[int, str] = {}
        for answer in (answer for replicas in answers for answer in replicas):
            # What `hold` itself does not answer with is a replica that was lost, perhaps to what it should load.
            refused |= dict.fromkeys(versions, str(answer)) if isinstance(answer, BaseException) else answer
        return refused

    def backend(self, edition: ServedVersion) -> "Deployments":
        """Return what answers by one version; see `Fleet.backend`."""
        return Deployments(edition, self)

    @property
    def parts(self) -> int:
        """Shares of the rows."""
        return len(self._searchers)

    async def describe(self, wanted: ToDescribe) -> Descriptor:
        """Let a describer describe an image, with others unless it is large or must be fetched first."""
        alone = isinstance(wanted.source, str) or len(wanted.source) > SMALL
        found = (await self._describer.describe.remote([wanted]))[0] if alone else await self._descriptions(wanted)
        result: Descriptor = _given(found)
        return result

    async def compare(self, wanted: CompareRequest) -> list[Kind | None]:
        """Let a describer look which pictures are the same."""
        result: list[Kind | None] = _given(await self._describer.compare.remote(wanted))
        return result

    async def probe(self, version: int) -> Descriptor:
        """Describe a tiny image, to see that the describers answer."""
        result: Descriptor = await self._describer.probe.remote(version)
        return result

    async def each(self, call: Call) -> list[Any]:
        """Call a method of `Answerer` for each share of the rows."""
        _, method, args = call
        if method in LIGHT and all(ranking.is_light for ranking in args if isinstance(ranking, Ranking)):
            answers = await asyncio.gather(*(ask(call) for ask in self._calls))
        else:
            answers = [one for (one,) in await asyncio.gather(*(s.call.remote([call]) for s in self._searchers))]
        return [_given(answer) for answer in answers]


class Deployments(Backend):
    """A fleet asked by one version."""

    def __init__(self, edition: ServedVersion, fleet: DeployedFleet) -> None:
        self.edition, self.parts, self._fleet = edition, fleet.parts, fleet

    async def describe(self, source: bytes | str, box: Box | None, preview: bool) -> Descriptor:
        """Let the describer describe an image."""
        return await self._fleet.describe(ToDescribe(self.edition.version, source, box, preview))

    async def compare(self, source: bytes | str, uris: list[str]) -> list[Kind | None]:
        """Let the describer look which pictures are the same."""
        return await self._fleet.compare(CompareRequest(self.edition.version, source, uris))

    async def probe(self) -> None:
        """Ask a tiny query through all deployments."""
        await self.rank(await self._fleet.probe(self.edition.version), Ranking(1))

    async def _each(self, method: str, *args: Any) -> list[Any]:
        return await self._fleet.each((self.edition.version, method, args))


class Ingress:
    """The routes, over the index's newest version.

    Args:
        index: URI.
        fleet: describer, searchers, and how many calls of these may be under way, see `DeployedFleet`.
        limits: of queries.
        tokens: who may ask.
        refresh: seconds between looks for a newer version.
    """

    def __init__(
        self,
        index: str,
        fleet: tuple[Handle, list[Handle], tuple[int, int]],
        limits: Limits,
        tokens: Tokens | None,
        refresh: float,
    ) -> None:
        self._library = Library(index, DeployedFleet(*fleet))
        self._limits, self._desk = limits, EndpointSettings(RequestMetrics(self._library), tokens, refresh)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application in the replica; called by Ray Serve."""
        return build_app(self._library, self._limits, self._desk)


def _given(result: Any) -> Any:
    """Return the result of another replica, or raise the refusal that it stands for."""
    if isinstance(result, Refusal):
        raise QueryError(*result)
    if isinstance(result, Exception):
        raise result
    return result
