"""The baseline of a backbone that nobody fine-tuned: what ImageNet alone gives."""

from typing import Final

import torch

from rsir_core.models.bundle import Bundle
from rsir_core.models.classifier import build_classifier, load_start_weights, settings_for
from rsir_core.models.settings import ClassifierSettings

FROZEN: Final = "frozen"  # in place of a bundle's URI


def frozen_bundle(classifier: ClassifierSettings, weights: str | None) -> Bundle:
    """Build the bundle of a backbone before it was trained, for whole images; all classes are equally probable.

    Args:
        classifier: whose backbone, classes and size of images it has.
        weights: as `load_start_weights` takes them.

    Raises:
        WeightsError: the weights cannot be had, or do not fit.
    """
    backbone, classes = classifier.backbone, classifier.classes
    model = build_classifier(backbone, len(classes))
    load_start_weights(model, backbone, weights)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    settings = settings_for(backbone, classes, classifier.image_size)
    return Bundle(settings, None, 1.0, FROZEN, model.state_dict(), {})
