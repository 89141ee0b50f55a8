"""EfficientNet-Lite is timm's, bit by bit: initial values, outputs, gradients, statistics."""

import pytest
import timm
import torch
from torch import nn

from rsir_core.models.efficientnet import SCALES, EfficientNetLite
from rsir_core.models.fusion import fold_batch_norms


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(params=SCALES)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    theirs = timm.create_model(f"tf_{request.param}", num_classes=0)
    drawn = torch.rand(4)
    torch.manual_seed(3)
    ours = EfficientNetLite(request.param)
    assert torch.equal(torch.rand(4), drawn)  # so what is drawn next, such as a head, is the same too
    assert equal(ours.state_dict(), theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("side", [32, 97, 224])
def test_it_trains_and_describes_as_timms_does(pair: tuple[nn.Module, nn.Module], side: int) -> None:
    x = torch.randn(2, 3, side, side).to(memory_format=torch.channels_last)
    ours, theirs = (model.train()(x) for model in pair)
    assert torch.equal(ours, theirs) and ours.shape == (2, 1280)
    for model, out in zip(pair, (ours, theirs), strict=True):
        out.square().sum().backward()
        assert model.get_parameter("conv_stem.weight").grad is not None
    gradients = [{name: p.grad for name, p in model.named_parameters() if p.grad is not None} for model in pair]
    assert equal(*gradients) and len(gradients[0]) == len(list(pair[0].parameters()))
    assert equal(pair[0].state_dict(), pair[1].state_dict())  # the statistics have moved alike
    folded = [fold_batch_norms(model).to(memory_format=torch.channels_last) for model in pair]
    with torch.inference_mode():
        assert torch.equal(folded[0](x), folded[1](x))
