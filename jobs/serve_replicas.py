"""What runs in each replica of the endpoint: thin calls around `serve_query`, `serve_answer` and `serve_app`."""

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from fastapi import FastAPI
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from jobs.serve_answer import Answerer
from jobs.serve_app import Desk, build_app
from jobs.serve_batch import Batcher
from jobs.serve_gather import Backend
from jobs.serve_library import Library
from jobs.serve_metrics import Meters
from jobs.serve_query import Descriptor, Edition, QueryDescriber, Ranking, edition_of, refusal_of, with_preview
from jobs.serve_reading import Limits
from jobs.serve_shelf import Shelf
from jobs.serve_tokens import Tokens
from rsir_core.errors import BundleError, ImageError, QueryError, TableError
from rsir_core.raster import Picture
from rsir_core.regions import Box
from rsir_core.table import Index

P = ParamSpec("P")
T = TypeVar("T")

BATCH: Final = 8  # on one CPU thread more would only make the first of them wait
PROBE: Final = Picture(np.zeros((32, 32, 3), np.uint8), None)


class Refusal(NamedTuple):
    """A QueryError as a value: an exception that leaves a replica is logged, with its traceback, as a fault of ours."""

    message: str
    status: int


def refusing(call: Callable[P, T]) -> Callable[P, T | Refusal]:
    """Give the call's QueryError as its result."""

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T | Refusal:
        try:
            return call(*args, **kwargs)
        except ImageError as error:
            return Refusal(error.message, refusal_of(error).status)
        except QueryError as error:
            return Refusal(error.message, error.status)
        except (TableError, BundleError) as error:  # a version that this replica had not loaded, and cannot any more
            return Refusal(str(error), 404)

    return wrapped


class Describers:
    """Loads describers for a shelf; versions of the same bundle and PCA share one."""

    def __init__(self, index: str, max_pixels: int, device: str) -> None:
        self._index, self._more = index, (max_pixels, device)
        self._loaded: WeakValueDictionary[tuple[str, str], QueryDescriber] = WeakValueDictionary()

    def __call__(self, version: int) -> QueryDescriber:
        """That of a version."""
        edition = edition_of(self._index, version)
        key = edition.bundle, edition.pca
        describer = self._loaded.get(key)
        if describer is None:
            describer = self._loaded[key] = QueryDescriber(edition, *self._more)
        return describer


class Asked(NamedTuple):
    """A picture to describe, with what the version that is asked has for it."""

    describer: QueryDescriber
    picture: Picture
    box: Box | None
    preview: bool


def describe_together(asked: list[Asked]) -> list[Descriptor]:
    """One descriptor each; those for one describer in one batch."""
    found: dict[int, Descriptor] = {}
    for describer in {id(one.describer): one.describer for one in asked}.values():
        mine = [i for i, one in enumerate(asked) if one.describer is describer]
        pictures, boxes, shown = zip(*(asked[i][1:] for i in mine), strict=True)
        found |= zip(mine, describer.describe(list(pictures), list(boxes), list(shown)), strict=True)
    return [found[i] for i in range(len(asked))]


class DescriberReplica:
    """Bundles on one device. Full pictures stay in here."""

    def __init__(self, index: str, max_pixels: int, device: str) -> None:
        torch.set_num_threads(1)
        self._shelf = Shelf(Describers(index, max_pixels, device))
        self._shelf.get(Index(index).version())
        self._batch = Batcher(describe_together, BATCH)

    async def describe(self, version: int, source: bytes | str, box: Box | None, preview: bool) -> Descriptor | Refusal:
        """One image; those that come at the same time are described together."""
        asked = await asyncio.to_thread(self._read, version, source, box, preview)
        if isinstance(asked, Refusal):
            return asked
        described = await self._batch(asked)
        return with_preview(described, asked.picture) if preview else described

    async def probe(self, version: int) -> Descriptor:
        """A tiny query, by the same way."""
        describer = await asyncio.to_thread(self._shelf.get, version)
        return await self._batch(Asked(describer, PROBE, None, False))

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """See `Shelf.hold`."""
        return await asyncio.to_thread(self._shelf.hold, versions)

    async def check_health(self) -> None:
        """Called by Serve, which replaces a replica whose queries fail or no longer end."""
        await self._batch(Asked(self._shelf.newest, PROBE, None, False))

    @refusing
    def _read(self, version: int, source: bytes | str, box: Box | None, preview: bool) -> Asked:
        describer = self._shelf.get(version)
        return Asked(describer, describer.read(source, box), box, preview)


class SearcherReplica:
    """The rows of an index, or a share of them."""

    def __init__(self, index: str, part: int, parts: int) -> None:
        self._shelf = Shelf(lambda version: Answerer(edition_of(index, version), part, parts))
        self._shelf.get(Index(index).version())

    @refusing
    def call(self, version: int, method: str, *args: Any) -> Any:
        """What a method of the answerer gives."""
        return getattr(self._shelf.get(version), method)(*args)

    def hold(self, versions: list[int]) -> dict[int, str]:
        """See `Shelf.hold`."""
        return self._shelf.hold(versions)

    def check_health(self) -> None:
        """Called by Serve, which replaces a replica whose queries fail or no longer end."""
        self._shelf.newest.probe()


class Deployments(Backend):
    """The describer and the searchers, as the ingress reaches them, asked by one version."""

    def __init__(
        self, edition: Edition, describer: DeploymentHandle[Any], searchers: Sequence[DeploymentHandle[Any]]
    ) -> None:
        self.edition, self.parts = edition, len(searchers)
        self._describer, self._searchers = describer, searchers

    async def describe(self, source: bytes | str, box: Box | None, preview: bool) -> Descriptor:
        """Let the describer describe an image."""
        asked = self._describer.describe.remote(self.edition.version, source, box, preview)
        result: Descriptor = _given(await asked)
        return result

    async def probe(self) -> None:
        """A tiny query through all of them."""
        described: Descriptor = _given(await self._describer.probe.remote(self.edition.version))
        await self.rank(described, Ranking(1))

    async def _each(self, method: str, *args: Any) -> list[Any]:
        asked = [searcher.call.remote(self.edition.version, method, *args) for searcher in self._searchers]
        return [_given(answer) for answer in await asyncio.gather(*asked)]


class DeployedFleet:
    """All replicas of the describer and of the searchers."""

    def __init__(self, describer: DeploymentHandle[Any], searchers: Sequence[DeploymentHandle[Any]]) -> None:
        self._describer, self._searchers = describer, searchers

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """See `Fleet.hold`. A replica that starts meanwhile loads what it is asked for."""
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

    def backend(self, edition: Edition) -> Backend:
        """See `Fleet.backend`."""
        return Deployments(edition, self._describer, self._searchers)


class Ingress:
    """The routes, over the index's newest version."""

    def __init__(
        self,
        index: str,
        fleet: tuple[DeploymentHandle[Any], list[DeploymentHandle[Any]]],
        limits: Limits,
        tokens: Tokens | None,
        refresh: float,
    ) -> None:
        self._library = Library(index, DeployedFleet(*fleet))
        self._limits, self._desk = limits, Desk(Meters(self._library), tokens, refresh)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve, in the replica."""
        return build_app(self._library, self._limits, self._desk)


def _given(result: Any) -> Any:
    """A result of another replica; its refusal becomes an exception again."""
    if isinstance(result, Refusal):
        raise QueryError(*result)
    return result
