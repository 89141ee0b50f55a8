"""How fast something is, on a device that works on while Python does."""

import statistics
import time
from collections.abc import Callable

import torch

ROUNDS = 5
WARM_UP = 3


def synchronize(device: torch.device) -> None:
    """Wait for all that a GPU was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def per_second(function: Callable[[], object], count: int, seconds: float, device: torch.device) -> float:
    """Measure items per second of a function that works on `count` of them: the median of some rounds.

    Args:
        function: called again and again; a few calls warm up.
        count: items per call.
        seconds: of all rounds together, about.
        device: is waited for at the end of each round.
    """
    began = time.perf_counter()
    for _ in range(WARM_UP):
        function()
        if time.perf_counter() - began > 10 * seconds:
            break
    synchronize(device)
    began = time.perf_counter()
    function()
    synchronize(device)
    calls = max(1, int(seconds / ROUNDS / max(time.perf_counter() - began, 1e-6)))
    rates = []
    for _ in range(ROUNDS if calls > 1 else 2):
        began = time.perf_counter()
        for _ in range(calls):
            function()
        synchronize(device)
        rates.append(count * calls / (time.perf_counter() - began))
    return statistics.median(rates)
