"""Batches: of all that waits, in order, and each caller gets its own."""

import asyncio
import threading

import pytest

from jobs.serve_batch import Batcher


class Worker:
    """Squares, once it is let; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began, self.may = threading.Event(), threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.began.set()
        assert self.may.wait(30)
        if 13 in items:
            raise ValueError("13")
        return [item**2 for item in items]


async def asked(worker: Worker, batcher: Batcher[int, int], items: list[int]) -> list[asyncio.Task[int]]:
    """The first is under way, the others wait."""
    tasks = [asyncio.create_task(batcher(items[0]))]
    while not worker.began.is_set():
        await asyncio.sleep(0)
    tasks += [asyncio.create_task(batcher(item)) for item in items[1:]]
    await asyncio.sleep(0)
    return tasks


def test_what_comes_while_it_is_busy_goes_together() -> None:
    async def check() -> None:
        worker = Worker()
        tasks = await asked(worker, Batcher(worker, 4), list(range(10)))
        worker.may.set()
        assert await asyncio.gather(*tasks) == [i**2 for i in range(10)]
        assert worker.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]

    asyncio.run(check())


def test_a_failure_is_its_batchs_alone_and_who_left_is_left_out() -> None:
    async def check() -> None:
        worker = Worker()
        batcher = Batcher(worker, 2)
        tasks = await asked(worker, batcher, [1, 13, 2, 3, 4])
        tasks[3].cancel()
        worker.may.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert (found[0], str(found[1]), str(found[2]), found[4]) == (1, "13", "13", 16)
        assert isinstance(found[3], asyncio.CancelledError)
        assert worker.batches == [[1], [13, 2], [4]]
        with pytest.raises(ValueError, match="13"):
            await batcher(13)
        assert await batcher(5) == 25

    asyncio.run(check())
