"""Gradients of depthwise convolutions in bfloat16 on CPUs, computed from float32 copies.

oneDNN computes the forward pass fast, and the backward pass for small kernels without stride. For all others it has
only a reference loop, which took two thirds of a training step of efficientnet_lite0.
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
    """Return a context in which these gradients are computed fast; it does nothing on devices that need no help."""
    in_bfloat16 = device.type == "cpu" and trains_in_bfloat16(device)
    return FastDepthwise() if in_bfloat16 else nullcontext()  # type: ignore[no-untyped-call]


class FastDepthwise(TorchDispatchMode):
    """Compute slow convolutions' gradients in float32 while entered; the results differ by rounding only."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Intercept every PyTorch operation, including those of the backward pass."""
        if func is _BACKWARD and _is_slow(x=args[1], weight=args[2], stride=args[4], groups=args[9]):
            gradients = func(*(tensor.float() for tensor in args[:3]), *args[3:])
            return tuple(None if gradient is None else gradient.bfloat16() for gradient in gradients)
        return func(*args, **(kwargs or {}))


def _is_slow(*, x: Tensor, weight: Tensor, stride: list[int], groups: int) -> bool:
    reference = max(weight.shape[2:]) > 3 or max(stride) > 1
    return reference and groups == x.shape[1] > 1 and x.is_cpu and x.dtype == weight.dtype == torch.bfloat16
