"""Calls put together while the one before them runs."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Batcher(Generic[A, B]):
    """A function of a batch, run in one thread on all that came while it was busy; none waits for company.

    Ray Serve's own batching decides who goes together when they come, before it is their turn; where requests come one
    by one as others are answered, that leaves batches of one.

    Args:
        function: gives one result per item.
        largest: items per batch.
    """

    def __init__(self, function: Callable[[list[A]], list[B]], largest: int) -> None:
        self._function, self._largest = function, largest
        self._waiting: deque[tuple[A, asyncio.Future[B]]] = deque()
        self._thread = ThreadPoolExecutor(1)  # so that the event loop goes on
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: A) -> B:
        """The item's result."""
        result: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._largest, len(self._waiting)))]
            batch = [(item, result) for item, result in batch if not result.cancelled()]
            if not batch:
                continue
            try:
                results = await loop.run_in_executor(self._thread, self._function, [item for item, _ in batch])
            except Exception as error:  # theirs, whatever it is; the next batch has another chance
                for _, result in batch:
                    if not result.cancelled():
                        result.set_exception(error)
                continue
            for (_, result), value in zip(batch, results, strict=True):
                if not result.cancelled():
                    result.set_result(value)
        self._running = None
