"""Batch calls that arrive while earlier ones are running."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Final, Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")

BATCH: Final = 8  # requests per call: on one CPU thread more would only make the first of them wait
GPU_BATCH: Final = 64  # pictures per call of a describer on a GPU, whose time for so many is that for few: milliseconds


class Batcher(Generic[A, B]):
    """Call a function of a batch on all items that arrived while it was busy; no item waits for others.

    Ray Serve's own batching decides who goes together when they come, before it is their turn; where requests come one
    by one as others are answered, that leaves batches of one.

    Args:
        function: gives one result per item; an exception in place of one is that item's.
        largest: items per batch.
        at_once: batches under way, above which items wait for each other.
    """

    def __init__(
        self, function: Callable[[list[A]], Awaitable[Sequence[B | Exception]]], largest: int, at_once: int = 1
    ) -> None:
        self._function, self._largest, self._at_once = function, largest, at_once
        self._waiting: deque[tuple[A, asyncio.Future[B]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, item: A) -> B:
        """Return the item's result, computed in a batch with others."""
        result: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if len(self._running) < self._at_once:
            # In an empty context: Serve cancels calls of a request whose client has left, but a batch serves several.
            self._running.add(asyncio.create_task(self._run(), context=Context()))
        return await result

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._largest, len(self._waiting)))]
                await self._answer([(item, result) for item, result in batch if not result.cancelled()])
        finally:  # by the task itself: an item queued between its end and a done-callback would never run
            self._running = {task for task in self._running if task is not asyncio.current_task()}

    async def _answer(self, batch: list[tuple[A, asyncio.Future[B]]]) -> None:
        if not batch:
            return
        values: Sequence[B | Exception]
        try:
            values = await self._function([item for item, _ in batch])
        except Exception as error:  # theirs, whatever it is; the next batch has another chance
            values = [error] * len(batch)
        except BaseException:  # the call was ended
            for _, result in batch:
                result.cancel()
            raise
        for (_, result), value in zip(batch, values, strict=True):
            if result.cancelled():
                continue
            if isinstance(value, Exception):
                result.set_exception(value)
            else:
                result.set_result(value)


async def alone(function: Callable[[list[A]], Awaitable[Sequence[B | Exception]]], item: A) -> B:
    """Return an item's result, computed at once and with no other's: of what others should not wait for."""
    (value,) = await function([item])
    if isinstance(value, Exception):
        raise value
    return value


def each(function: Callable[[A], B], asked: list[A]) -> list[B | Exception]:
    """Call a function for each request; where it raises, the exception stands in place of the result."""
    results: list[B | Exception] = []
    for request in asked:
        try:
            results.append(function(request))
        except Exception as error:
            results.append(error)
    return results
