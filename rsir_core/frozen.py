"""The baseline of a backbone that nobody fine-tuned: what ImageNet alone gives."""

from collections.abc import Sequence
from typing import Final

import torch

from rsir_core.bundle import Bundle
from rsir_core.classifier import build_classifier, load_start_weights, settings_for

FROZEN: Final = "frozen"  # in place of a bundle's URI


def frozen_bundle(backbone: str, classes: Sequence[str], image_size: int) -> Bundle:
    """A backbone with the weights that it ships, for whole images; all classes are equally probable.

    Raises:
        WeightsError: no such backbone, or its weights cannot be had.
    """
    model = build_classifier(backbone, len(classes))
    load_start_weights(model, backbone, None)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    settings = settings_for(backbone, classes, image_size)
    return Bundle(settings, None, 1.0, FROZEN, model.state_dict(), {})
