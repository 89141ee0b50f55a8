"""Bundles without a backbone, for embeddings that somebody else made: no image can be described with one."""

from typing import Final

import torch

from rsir_core.models.bundle import Bundle
from rsir_core.models.settings import EXTERNAL, ClassifierSettings

BUNDLE: Final = "external"  # in place of a fingerprint, until it is written


def external_bundle(dimensions: int) -> Bundle:
    """Build the bundle of embeddings of so many dimensions; it has no classes."""
    settings = ClassifierSettings(EXTERNAL, (), 1, (0.0,) * 3, (1.0,) * 3, dimensions=dimensions)
    state = {"head.weight": torch.empty(0, dimensions), "head.bias": torch.empty(0)}
    return Bundle(settings, None, 1.0, BUNDLE, state, {})
