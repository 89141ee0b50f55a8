"""Train the head alone: logistic regression on stored embeddings, so that the backbone stays as it is."""

import numpy as np
import torch
from torch import Tensor

from rsir_core.arrays import Floats, Ints

MAX_ITERATIONS = 1000  # of L-BFGS


def fit_head(embedding: Floats, labels: Ints, class_count: int) -> dict[str, Tensor]:
    """Fit a linear layer from embeddings to logits by regularised logistic regression.

    Embeddings are scaled to a mean length of √D while it is fitted, so that the regularisation means the same for every
    backbone.

    Args:
        embedding: (n, D).
        labels: (n,), each of the C classes at least once.
        class_count: C, at least 2.

    Returns:
        `weight` (C, D) and `bias` (C,) float32.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 -- a second, and only trainings need it

    length = float(np.linalg.norm(embedding, axis=1).mean()) / np.sqrt(embedding.shape[1])
    scale = length if length > 0 else 1.0
    found = LogisticRegression(max_iter=MAX_ITERATIONS).fit(embedding / scale, labels)
    weight, bias = found.coef_ / scale, found.intercept_
    if class_count == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return {"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias).float()}
