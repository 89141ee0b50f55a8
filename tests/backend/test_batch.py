"""Batches: of all that waits, in order, and each caller gets its own."""

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from rsir_core.backend.batch import BATCH, GPU_BATCH, Batcher
from rsir_core.backend.protocol import DescribeRequest
from rsir_core.backend.router import Router


class Worker:
    """Squares, once it is let; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began, self.may = asyncio.Event(), asyncio.Event()

    async def __call__(self, items: list[int]) -> list[int | Exception]:
        self.batches.append(items)
        self.began.set()
        await self.may.wait()
        if 13 in items:
            raise ValueError("13")
        return [item**2 if item >= 0 else ValueError(f"{item}") for item in items]


async def asked(worker: Worker, batcher: Batcher[int, Any], items: list[int]) -> list[asyncio.Task[Any]]:
    """The first is under way, the others wait."""
    tasks = [asyncio.create_task(batcher(items[0]))]
    await worker.began.wait()
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


def test_the_router_sends_a_describer_as_many_pictures_at_once_as_it_is_to_take() -> None:
    """More to a GPU, which has described 64 of them when a CPU has described one."""

    async def check(router: Router, describer: FakeDescriber) -> list[int]:
        await asyncio.gather(*(router.describe(DescribeRequest(1, b"%d" % i)) for i in range(101)))
        return describer.calls

    for pictures, calls in ((BATCH, [8] * 12 + [5]), (GPU_BATCH, [64, 37])):
        describer = FakeDescriber()
        router = Router(describer, [], pictures=pictures)  # type: ignore[arg-type]
        assert asyncio.run(check(router, describer)) == calls


class FakeDescriber:
    """Remembers how many pictures come at once."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def describe(self, asked: list[DescribeRequest]) -> list[Any]:
        self.calls.append(len(asked))
        await asyncio.sleep(0)
        return asked


def test_so_many_batches_are_under_way_at_once_and_no_item_is_forgotten() -> None:
    async def check() -> None:
        worker = Worker()
        batcher = Batcher(worker, 4, at_once=2)
        tasks = await asked(worker, batcher, [0, 1])
        await asyncio.sleep(0)
        assert worker.batches == [[0], [1]]
        tasks += [asyncio.create_task(batcher(item)) for item in (2, 3)]
        await asyncio.sleep(0)
        assert worker.batches == [[0], [1]]
        worker.may.set()
        assert await asyncio.gather(*tasks) == [0, 1, 4, 9]
        assert worker.batches == [[0], [1], [2, 3]]
        for i in range(10):  # each as soon as the one before it has been answered
            assert await batcher(i) == i**2

    asyncio.run(check())


def test_an_exception_in_place_of_a_result_is_that_items_alone() -> None:
    async def check() -> None:
        worker = Worker()
        tasks = await asked(worker, Batcher(worker, 4), [0, 1, -2, 3])
        worker.may.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert (found[:2], str(found[2]), found[3]) == ([0, 1], "-2", 9)

    asyncio.run(check())


def test_a_batch_is_nobodys_request() -> None:
    """Serve ends the calls that were made in the context of a request whose client has left."""
    whose = ContextVar("whose", default="nobody's")

    async def check() -> None:
        async def tell(items: list[int]) -> list[str]:
            return [whose.get()] * len(items)

        whose.set("mine")
        assert await Batcher(tell, 4)(0) == "nobody's"

    asyncio.run(check())
