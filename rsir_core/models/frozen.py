"""The baseline without fine-tuning: a backbone with its ImageNet weights alone."""

from typing import Final

import torch

from rsir_core.models.bundle import Bundle
from rsir_core.models.classifier import build_classifier, load_start_weights, settings_for
from rsir_core.models.settings import ClassifierSettings

FROZEN: Final = "frozen"  # in place of a bundle's URI


def frozen_bundle(classifier: ClassifierSettings, weights: str | None) -> Bundle:
    """Build the bundle of a backbone that is not fine-tuned, for whole images; all classes are equally probable.

    Args:
        classifier: gives the backbone, the classes and the image size.
        weights: as for `load_start_weights`.

    Raises:
        WeightsError: the weights cannot be read, or do not fit.
    """
    backbone, classes = classifier.backbone, classifier.classes
    model = build_classifier(backbone, len(classes))
    load_start_weights(model, backbone, weights)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    settings = settings_for(backbone, classes, classifier.image_size)
    return Bundle(settings, None, 1.0, FROZEN, model.state_dict(), {})
