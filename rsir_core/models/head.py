"""Class probabilities of embeddings by a bundle's linear head, without its backbone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from rsir_core.arrays import Floats
from rsir_core.models.settings import ClassifierSettings

PREFIX = "head."  # before the names of the head's tensors


class Head(NamedTuple):
    """Hold a linear layer from embeddings to classes.

    Attributes:
        weight: (C, D).
        bias: (C,).
        temperature: divisor of the logits before the softmax.
    """

    weight: Floats
    bias: Floats
    temperature: float

    @classmethod
    def of(cls, settings: ClassifierSettings, state: Mapping[str, Any]) -> "Head":
        """Take the head of a classifier's tensors."""
        weight, bias = (state[f"{PREFIX}{name}"].numpy() for name in ("weight", "bias"))
        return cls(weight, bias, settings.temperature)

    def probabilities(self, embedding: npt.NDArray[np.floating]) -> Floats:
        """Compute class probabilities (n, C) float32 of embeddings (n, D); C may be 0. NaN: numbers were too large."""
        with np.errstate(over="ignore", invalid="ignore"):
            logits = np.asarray(embedding, np.float32) @ self.weight.T + self.bias
            if not len(self.bias):
                return logits
            found: Floats = softmax(logits.astype(np.float64) / self.temperature, axis=1).astype(np.float32)
        return found  # float64 before: small probabilities matter, as in `describe`
