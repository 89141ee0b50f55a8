"""Small random model bundles, for tests that need some models and not good ones."""

from pathlib import Path

import torch
from torch import nn

from rsir_core.models import bundle
from rsir_core.models.classifier import build_classifier, settings_for
from rsir_core.models.detector import build_detector
from rsir_core.models.settings import DetectorSettings

CLASSES = ("airplane", "beach", "forest")


def write_bundle(
    folder: str | Path, *, detector: bool = True, backbone: str = "efficientnet_lite0", seed: int = 0
) -> str:
    """Write a bundle with random weights; returns its fingerprint."""
    torch.manual_seed(seed)
    if detector:
        # A score threshold of nearly 0, so that untrained weights find some object, anywhere.
        settings = DetectorSettings("yolov5n", ("plane", "ship"), image_size=64, min_score=1e-9)
        bundle.write_detector(str(folder), settings, build_detector("yolov5n", 2).state_dict())
    model = build_classifier(backbone, len(CLASSES))
    with torch.no_grad():
        model.head.weight.mul_(20)  # so that the probabilities of different images differ
    settings_ = settings_for(backbone, CLASSES, 64)
    return bundle.write_classifier(str(folder), settings_, model.state_dict(), 0.9, "uri,label,split\n")


def lively_detector(classes: int) -> bundle.State:
    """A yolov5n whose candidates differ clearly: the untrained one answers the same everywhere."""
    torch.manual_seed(0)
    model = build_detector("yolov5n", classes)
    for name, parameter in model.named_parameters():
        if name.endswith(".2.weight") and name.startswith("model.24.cv"):
            torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        model.train()
        for _ in range(3):  # so that batch normalisation has statistics to fold into the convolutions
            model(torch.rand(4, 3, 128, 128))
    return model.state_dict()


@torch.no_grad()
def settle(network: nn.Module, x: torch.Tensor) -> None:
    """Set the statistics of batch normalisations to those of a batch: with random ones activations die away."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of what comes
    network.train()
    network(x)
    network.eval()
