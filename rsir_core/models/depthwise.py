"""Gradients of depthwise convolutions in bfloat16 on CPUs, computed from float32 copies.

oneDNN is fast on their way forward, and on the way back with small kernels and no stride. For all others it has a
reference loop only, which took two thirds of a training step of efficientnet_lite0.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rsir_core.models.precision import trains_in_bfloat16

_BACKWARD = torch.ops.aten.convolution_backward.default


def fast_depthwise(device: torch.device) -> AbstractContextManager[Any]:
    """Compute gradients the fast way while this context is entered, where there is one."""
    in_bfloat16 = device.type == "cpu" and trains_in_bfloat16(device)
    return FastDepthwise() if in_bfloat16 else nullcontext()  # type: ignore[no-untyped-call]


class FastDepthwise(TorchDispatchMode):
    """While it is entered, gradients of convolutions are computed the fast way; they differ by rounding only."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Intercept every operation of PyTorch, those of the backward pass among them."""
        if func is _BACKWARD and _is_slow(x=args[1], weight=args[2], stride=args[4], groups=args[9]):
            gradients = func(*(tensor.float() for tensor in args[:3]), *args[3:])
            return tuple(None if gradient is None else gradient.bfloat16() for gradient in gradients)
        return func(*args, **(kwargs or {}))


def _is_slow(*, x: Tensor, weight: Tensor, stride: list[int], groups: int) -> bool:
    reference = max(weight.shape[2:]) > 3 or max(stride) > 1
    return reference and groups == x.shape[1] > 1 and x.is_cpu and x.dtype == weight.dtype == torch.bfloat16
