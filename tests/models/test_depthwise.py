"""Gradients of convolutions in bfloat16: the fast way's are those of float32 up to rounding, for every kind."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from rsir_core.models.depthwise import FastDepthwise


class Noting(TorchDispatchMode):
    """The types in which gradients of convolutions are computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.types: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.types.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def way_back(x: Tensor, weight: Tensor, stride: int, *, bias: bool = False) -> tuple[list[Tensor], torch.dtype]:
    """Gradients of the input, the weights and the bias, and the type that they were computed in."""
    groups = x.shape[1] // weight.shape[1]
    leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    leaves += [torch.zeros(len(weight), requires_grad=True)] if bias else []
    with torch.autocast("cpu", torch.bfloat16):
        found = functional.conv2d(
            leaves[0], leaves[1], leaves[2] if bias else None, stride, weight.shape[-1] // 2, groups=groups
        )
    with Noting() as noting, FastDepthwise():  # type: ignore[no-untyped-call]
        found.float().square().sum().backward()
    (computed_in,) = noting.types
    return [leaf.grad for leaf in leaves if leaf.grad is not None], computed_in


@given(
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 3),
    side=st.integers(3, 12),
    bias=st.booleans(),
    seed=st.integers(0, 100),
)
def test_gradients_of_depthwise_convolutions_are_those_of_float32(
    kernel: int, stride: int, side: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    x, weight = torch.randn(2, 4, side, side), torch.randn(4, 1, kernel, kernel)
    gradients, computed_in = way_back(x, weight, stride, bias=bias)
    assert computed_in == (torch.float32 if kernel > 3 or stride > 1 else torch.bfloat16)
    leaves = x.requires_grad_(), weight.requires_grad_()
    functional.conv2d(x, weight, None, stride, kernel // 2, groups=4).square().sum().backward()
    for leaf, gradient in zip(leaves, gradients, strict=False):
        assert leaf.grad is not None and gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, leaf.grad, rtol=0, atol=0.02 * float(leaf.grad.abs().max()))
    assert len(gradients) == 2 + bias


@pytest.mark.parametrize("channels", [4, 8])
def test_other_convolutions_are_left_alone(channels: int) -> None:
    _, computed_in = way_back(torch.randn(2, 8, 9, 9), torch.randn(8, channels, 5, 5), 2)
    assert computed_in == torch.bfloat16
