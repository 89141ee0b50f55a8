"""What folding must leave as it was: every family that torchvision and the bundle's own backbone define."""

import copy

import pytest
import torch
from torch import nn

from rsir_core.models.classifier import build_classifier
from rsir_core.models.fusion import fold_batch_norms

FAMILIES = [
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnet50",
    "shufflenet_v2_x0_5",
    "vgg11_bn",
]


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def unlike_new(model: nn.Module) -> None:
    """Give the normalisations what training would: all of their numbers matter."""
    for norm in norms(model):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.8, 1.2)
        nn.init.normal_(norm.bias, 0, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
def test_folded_networks_compute_the_same(backbone: str) -> None:
    torch.manual_seed(0)
    model = build_classifier(backbone, 5).eval()
    unlike_new(model)
    x = torch.randn(2, 3, 224, 224)
    folded = fold_batch_norms(copy.deepcopy(model))
    with torch.inference_mode():
        for before, after in zip(model(x), folded(x), strict=True):
            scale = before.abs().max()
            torch.testing.assert_close(after / scale, before / scale, atol=1e-4, rtol=0)
    assert len(norms(folded)) < max(1, len(norms(model)))


@pytest.mark.parametrize(
    "backbone",
    ["efficientnet_lite0", "efficientnet_lite2", "resnet18", pytest.param("vgg11_bn", marks=pytest.mark.slow)],
)
def test_nothing_is_left_to_normalise_where_each_norm_follows_its_convolution(backbone: str) -> None:
    assert norms(fold_batch_norms(build_classifier(backbone, 5))) == []
