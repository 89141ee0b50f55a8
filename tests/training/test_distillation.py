"""What a training learns from a teacher."""

import math

import pytest
import torch

from rsir_core.models.classifier import build_classifier, settings_for
from rsir_core.training.distillation import Teacher, loss_of

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
CLASSES = torch.tensor([0, 1])
TAUGHT = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])


def cross_entropy(logits: list[float], wanted: list[float]) -> float:
    total = math.log(sum(math.exp(x) for x in logits))
    return -sum(w * (x - total) for w, x in zip(wanted, logits, strict=True))


def test_half_of_the_loss_is_the_teachers() -> None:
    labels = [[0.9 * (c == y) + 0.1 / 3 for c in range(3)] for y in CLASSES.tolist()]
    by_label, by_teacher = (
        sum(cross_entropy(x, w) for x, w in zip(LOGITS.tolist(), wanted, strict=True)) / 2
        for wanted in (labels, TAUGHT.tolist())
    )
    assert loss_of(LOGITS, CLASSES, 0.1, None).item() == pytest.approx(by_label, rel=1e-5)
    assert loss_of(LOGITS, CLASSES, 0.1, TAUGHT).item() == pytest.approx((by_label + by_teacher) / 2, rel=1e-5)


def test_a_teacher_tells_what_the_trained_classifier_would() -> None:
    torch.manual_seed(0)
    settings, x = settings_for("resnet18", ("a", "b", "c"), 64), torch.rand(2, 3, 64, 64)
    model = build_classifier("resnet18", 3).eval()
    found = Teacher(settings, model.state_dict(), torch.device("cpu")).probabilities(x)
    assert found.shape == (2, 3) and not found.requires_grad
    torch.testing.assert_close(found, model(x)[1].softmax(dim=1).detach(), atol=0.02, rtol=0)  # in bfloat16, perhaps
