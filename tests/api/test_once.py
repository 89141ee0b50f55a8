"""What takes long is loaded once, by whichever thread needs it first."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from rsir_core.api.once import Once


def test_threads_that_come_together_load_once() -> None:
    both_load = threading.Barrier(2, timeout=0.5)  # which breaks unless two threads load at the same time
    loaded: list[int] = []

    def load() -> int:
        loaded.append(len(loaded))
        with suppress(threading.BrokenBarrierError):
            both_load.wait()
        return len(loaded)

    once = Once(load)
    with ThreadPoolExecutor(2) as threads:
        found = [thread.result() for thread in [threads.submit(once), threads.submit(once)]]
    assert loaded == [0] and found == [1, 1]


def test_what_failed_is_tried_again() -> None:
    answers = iter(list[int | Exception]([ZeroDivisionError(), 7]))

    def load() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    once = Once(load)
    with pytest.raises(ZeroDivisionError):
        once()
    assert once() == once() == 7
