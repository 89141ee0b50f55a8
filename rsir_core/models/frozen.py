"""Bundles without training: a backbone with the weights that it ships, and no classes."""

from typing import Final

import torch

from rsir_core.errors import WeightsError
from rsir_core.models.backbones import PROGRAM, TORCHSCRIPT, input_side, is_program, read_program
from rsir_core.models.bundle import Bundle, State
from rsir_core.models.classifier import build_classifier, load_start_weights, settings_for

FROZEN: Final = "frozen"  # in place of a bundle's URI


def frozen_bundle(backbone: str, weights: str | None, image_size: int | None = None) -> Bundle:
    """Build the bundle of a backbone that is not fine-tuned, for whole images; it has no classes.

    Args:
        backbone: as for `build_classifier`, or the URI of a TorchScript program, see `read_program`.
        weights: as for `load_start_weights`; a program has its own.
        image_size: side in pixels to which images are resized; None: the backbone's own, see `input_side`.

    Raises:
        WeightsError: the weights or the program cannot be read, or do not fit; or weights are given for a program.
    """
    image_size = image_size or input_side(backbone)
    if is_program(backbone):
        if weights is not None:
            raise WeightsError(f"--weights {weights}: {backbone} has its own weights; leave out --weights")
        data, dimensions = read_program(backbone, image_size)
        program = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        state: State = {
            PROGRAM: program, "head.weight": torch.empty(0, dimensions), "head.bias": torch.empty(0),
        }  # fmt: skip
        return Bundle(settings_for(TORCHSCRIPT, (), image_size), None, 1.0, FROZEN, state, {})
    model = build_classifier(backbone, 0)
    load_start_weights(model, backbone, weights)
    return Bundle(settings_for(backbone, (), image_size), None, 1.0, FROZEN, model.state_dict(), {})
