"""A training step of a backbone with the fast gradients of depthwise convolutions against PyTorch's own.

On CPUs with bfloat16 only; elsewhere both are the same: `python -m tests.benchmarks.training --json`.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsir_core.models.backbones import EFFICIENTNET_LITE0
from rsir_core.models.classifier import build_classifier
from rsir_core.models.depthwise import fast_depthwise
from rsir_core.models.precision import trains_in_bfloat16

CPU = torch.device("cpu")
Way = Callable[[], AbstractContextManager[Any]]  # in which gradients are computed


def main(argv: Sequence[str] | None = None) -> None:
    """Both ways in turns, medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default=EFFICIENTNET_LITE0)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    model = build_classifier(args.backbone, 21).to(memory_format=torch.channels_last).train()
    x = torch.randn(32, 3, args.side, args.side).contiguous(memory_format=torch.channels_last)
    ways: dict[str, Way] = {"fast": lambda: fast_depthwise(CPU), "plain": nullcontext}
    seconds = {name: [_step(model, x, way)] for name, way in ways.items()}  # the first ones warm up
    for _ in range(args.steps):
        for name, way in ways.items():
            seconds[name].append(_step(model, x, way))
    found = {name: median(taken[1:]) for name, taken in seconds.items()}
    print(
        json.dumps({**{f"{k}_seconds": round(v, 3) for k, v in found.items()}, "ratio": found["plain"] / found["fast"]})
    )


def _step(model: nn.Module, x: Tensor, way: Way) -> float:
    """Seconds of one way forward and back."""
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=trains_in_bfloat16(CPU)):
        _, logits = model(x)
    loss = functional.cross_entropy(logits.float(), torch.arange(len(x)) % 21)
    with way():
        loss.backward()
    model.zero_grad()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
