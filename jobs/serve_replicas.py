"""What runs in each replica of the endpoint: thin calls around `serve_query`, `serve_answer` and `serve_app`."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from jobs.serve_answer import Answerer
from jobs.serve_app import Limits, build_app
from jobs.serve_messages import AnswerJson, ImagesJson
from jobs.serve_query import Descriptor, Edition, QueryDescriber, refusal_of, with_preview
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
        described: Descriptor = await self._batch((picture, box))
        return with_preview(described, picture) if preview else described

    async def probe(self) -> Descriptor:
        """A tiny query, by the same way."""
        described: Descriptor = await self._batch((PROBE, None))
        return described

    async def check_health(self) -> None:
        """Called by Serve, which replaces a replica whose queries fail or no longer end."""
        await self.probe()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=BATCH_WAIT)
    async def _batch(self, asked: list[tuple[Picture, Box | None]]) -> list[Descriptor]:
        pictures, boxes = [picture for picture, _ in asked], [box for _, box in asked]
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._describe, pictures, boxes)


class SearcherReplica:
    """All rows of an edition."""

    def __init__(self, edition: Edition) -> None:
        self._answerer = Answerer(edition)
        self._counts = self._answerer.class_counts()

    @refusing
    def stored(self, image_id: str | None, uri: str | None) -> Descriptor:
        """The row of an indexed image."""
        return self._answerer.stored(image_id, uri)

    @refusing
    def answer(self, query: Descriptor, k: int, classes: list[str] | None) -> AnswerJson:
        """Rank the rows against a query."""
        return self._answerer.answer(query, k, classes)

    @refusing
    def images(self, contains: str, of_class: str | None, offset: int, limit: int) -> ImagesJson:
        """List the rows."""
        return self._answerer.images(contains, of_class, offset, limit)

    def class_counts(self) -> dict[str, int]:
        """How many rows each class has."""
        return self._counts

    def check_health(self) -> None:
        """Called by Serve, which replaces a replica whose queries fail or no longer end."""
        self._answerer.probe()


class Ingress:
    """The routes, with the other two deployments as their back end."""

    def __init__(
        self, describer: DeploymentHandle[Any], searcher: DeploymentHandle[Any], edition: Edition, limits: Limits
    ) -> None:
        self._describer, self._searcher = describer, searcher
        self._edition, self._limits = edition, limits

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve, in the replica."""
        return build_app(self, self._edition, self._limits)

    async def describe(self, source: bytes | str, box: Box | None, preview: bool) -> Descriptor:
        """Let the describer describe an image."""
        result: Descriptor = _given(await self._describer.describe.remote(source, box, preview))
        return result

    async def stored(self, image_id: str | None, uri: str | None) -> Descriptor:
        """Let the searcher find a row."""
        result: Descriptor = _given(await self._searcher.stored.remote(image_id, uri))
        return result

    async def answer(self, query: Descriptor, k: int, classes: list[str] | None) -> AnswerJson:
        """Let the searcher rank its rows."""
        result: AnswerJson = _given(await self._searcher.answer.remote(query, k, classes))
        return result

    async def images(self, contains: str, of_class: str | None, offset: int, limit: int) -> ImagesJson:
        """Let the searcher list its rows."""
        result: ImagesJson = _given(await self._searcher.images.remote(contains, of_class, offset, limit))
        return result

    async def class_counts(self) -> dict[str, int]:
        """Let the searcher count its rows."""
        result: dict[str, int] = _given(await self._searcher.class_counts.remote())
        return result

    async def probe(self) -> None:
        """A tiny query through both."""
        await self.answer(_given(await self._describer.probe.remote()), 1, None)


def _given(result: Any) -> Any:
    """A result of another replica; its refusal becomes an exception again."""
    if isinstance(result, Refusal):
        raise QueryError(*result)
    return result
