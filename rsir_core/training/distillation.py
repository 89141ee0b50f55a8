"""Distillation: a training that learns from a trained classifier as well as from the labels."""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from rsir_core.models.classifier import State, build_classifier
from rsir_core.models.precision import trains_in_bfloat16
from rsir_core.models.settings import ClassifierSettings

TAUGHT: Final = 0.5  # share of the loss that the teacher has


class Teacher:
    """Tell a training how probable a trained classifier finds each class of the training views.

    Args:
        settings: of the classifier, the same as those of what is trained.
        state: its tensors.
        device: where the training runs.
    """

    def __init__(self, settings: ClassifierSettings, state: State, device: torch.device) -> None:
        model = build_classifier(settings.backbone, len(settings.classes))
        model.load_state_dict(dict(state))
        self._model = model.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self._device = device

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Compute the classes' probabilities N×C, float32, of views N×3×S×S."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=trains_in_bfloat16(self._device)):
            _, logits = self._model(x)
        probabilities: Tensor = logits.float().softmax(dim=1)
        return probabilities


def loss_of(logits: Tensor, classes: Tensor, smoothing: float, taught: Tensor | None) -> Tensor:
    """Compute the mean loss of a batch: cross-entropy with the labels, and with a teacher's probabilities.

    After Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2, with temperature 1.

    Args:
        logits: N×C float32.
        classes: (N,).
        smoothing: share of a label that is spread over all classes.
        taught: N×C, the teacher's probabilities, which have `TAUGHT` of the loss; None: there is no teacher.
    """
    by_label = functional.cross_entropy(logits, classes, label_smoothing=smoothing)
    if taught is None:
        return by_label
    return (1 - TAUGHT) * by_label + TAUGHT * functional.cross_entropy(logits, taught)
