"""What runs in each replica of the endpoint: thin calls around `serve_query`, `serve_answer` and `serve_app`."""

import asyncio
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from jobs.serve_answer import Answerer
from jobs.serve_app import Backend, Limits, build_app
from jobs.serve_query import Descriptor, Edition, QueryDescriber, Ranking, refusal_of, with_preview
from rsir_core.errors import ImageError, QueryError
from rsir_core.raster import Picture
from rsir_core.regions import Box

P = ParamSpec("P")
T = TypeVar("T")

BATCH: Final = 8  # on one CPU thread more would only make the first of them wait
BATCH_WAIT: Final = 0.005  # seconds that a lone query waits for company
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

    return wrapped


class DescriberReplica:
    """One bundle on one device. Full pictures stay in here."""

    def __init__(self, edition: Edition, max_pixels: int, device: str) -> None:
        torch.set_num_threads(1)
        describer = QueryDescriber(edition, max_pixels, device)
        self._read = refusing(describer.read)
        self._describe = describer.describe
        self._worker = ThreadPoolExecutor(1)  # so that the event loop goes on during a forward pass

    async def describe(self, source: bytes | str, box: Box | None, preview: bool) -> Descriptor | Refusal:
        """One image; those that come at the same time are described together."""
        picture = await asyncio.to_thread(self._read, source, box)
        if isinstance(picture, Refusal):
            return picture
        described: Descriptor = await self._batch((picture, box, preview))
        return with_preview(described, picture) if preview else described

    async def probe(self) -> Descriptor:
        """A tiny query, by the same way."""
        described: Descriptor = await self._batch((PROBE, None, False))
        return described

    async def check_health(self) -> None:
        """Called by Serve, which replaces a replica whose queries fail or no longer end."""
        await self.probe()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=BATCH_WAIT)
    async def _batch(self, asked: list[tuple[Picture, Box | None, bool]]) -> list[Descriptor]:
        pictures, boxes, shown = (list(column) for column in zip(*asked, strict=True))
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._describe, pictures, boxes, shown)


class SearcherReplica:
    """The rows of an edition, or a share of them."""

    def __init__(self, edition: Edition, part: int, parts: int) -> None:
        self._answerer = Answerer(edition, part, parts)
        self._held = self._answerer.held()

    @refusing
    def call(self, method: str, *args: Any) -> Any:
        """What a method of the answerer gives."""
        return self._held if method == "held" else getattr(self._answerer, method)(*args)

    def check_health(self) -> None:
        """Called by Serve, which replaces a replica whose queries fail or no longer end."""
        self._answerer.probe()


class Deployments(Backend):
    """The describer and the searchers of an edition, as the ingress reaches them."""

    def __init__(
        self, edition: Edition, describer: DeploymentHandle[Any], searchers: Sequence[DeploymentHandle[Any]]
    ) -> None:
        self.edition, self.parts = edition, len(searchers)
        self._describer, self._searchers = describer, searchers

    async def describe(self, source: bytes | str, box: Box | None, preview: bool) -> Descriptor:
        """Let the describer describe an image."""
        result: Descriptor = _given(await self._describer.describe.remote(source, box, preview))
        return result

    async def probe(self) -> None:
        """A tiny query through all of them."""
        described: Descriptor = _given(await self._describer.probe.remote())
        await self.rank(described, Ranking(1))

    async def _each(self, method: str, *args: Any) -> list[Any]:
        asked = [searcher.call.remote(method, *args) for searcher in self._searchers]
        return [_given(answer) for answer in await asyncio.gather(*asked)]


class Ingress:
    """The routes, over one edition."""

    def __init__(
        self,
        edition: Edition,
        describer: DeploymentHandle[Any],
        searchers: Sequence[DeploymentHandle[Any]],
        limits: Limits,
    ) -> None:
        self._backend, self._limits = Deployments(edition, describer, searchers), limits

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve, in the replica."""
        return build_app(self, self._limits)

    def backend(self, version: int | None) -> Backend:
        """The edition's, whichever it is."""
        if version not in (None, self._backend.edition.version):
            raise QueryError(f"version: {version} is not loaded; there is {self._backend.edition.version}", 404)
        return self._backend

    def versions(self) -> list[int]:
        """The one."""
        return [self._backend.edition.version]


def _given(result: Any) -> Any:
    """A result of another replica; its refusal becomes an exception again."""
    if isinstance(result, Refusal):
        raise QueryError(*result)
    return result
