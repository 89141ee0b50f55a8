"""A scorer: logistic regression on embeddings of unit length, fitted to the labels of a collection."""

import base64
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt

from rsir_core.arrays import Doubles, Floats, Mask
from rsir_core.errors import LabelError

FOLDS: Final = 5
FEWEST: Final = 5  # images of either kind, below which nothing can be estimated
STRENGTHS: Final = (0.1, 1.0, 10.0, 100.0)  # `C` of the regression, the inverse of its regularisation
DEFAULT_STRENGTH: Final = 10.0  # where there are too few labels to choose
TINY: Final = 1e-4  # added to deviations of the numbers of a unit embedding, which are some 0.01

Separation = Literal["cells", "scenes"]


@dataclass(frozen=True)
class Estimate:
    """Say how well a scorer does on labelled images that it was not fitted to, each in one of several folds.

    Labelled images are no random sample of an archive, so this says how it does on images like them.

    Attributes:
        average_precision: 0 to 1.
        precision: share of images with a probability of at least 0.5 that are positive; None: there were none.
        recall: share of positive images that have at least that.
        separated_by: what no two folds share: cells of a grid on the ground, or scenes (of which tiles are cut).
    """

    average_precision: float
    precision: float | None
    recall: float
    separated_by: Separation


@dataclass(frozen=True)
class Scorer:
    """Give images a probability to be positive.

    Attributes:
        positive: label of the positive images; all other labels are negative.
        bundle: fingerprint of the model bundle whose embeddings it takes.
        weights: (D,) float32, for embeddings of unit length.
        bias: what is added.
        positives: number of labelled images that are positive.
        negatives: number of those that are not.
        estimate: how good it is; None: there are too few labels, or too few places.
    """

    positive: str
    bundle: str
    weights: Floats
    bias: float
    positives: int
    negatives: int
    estimate: Estimate | None

    def score(self, embedding: Floats) -> Floats:
        """Return the probability (n,) float32 of embeddings (n, D)."""
        return _probability(_unit(embedding) @ self.weights + np.float32(self.bias)).astype(np.float32)

    def to_bytes(self) -> bytes:
        """Encode as JSON; the weights are little-endian float32 in base64."""
        weights = base64.b64encode(self.weights.astype("<f4").tobytes()).decode()
        return json.dumps({**asdict(replace(self, weights=np.empty(0, np.float32))), "weights": weights}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode; the inverse of `to_bytes`."""
        values: dict[str, Any] = json.loads(data)
        weights = np.frombuffer(base64.b64decode(values.pop("weights")), "<f4").astype(np.float32)
        estimate = values.pop("estimate")
        return cls(**values, weights=weights, estimate=None if estimate is None else Estimate(**estimate))


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Hold what a scorer is fitted to.

    Attributes:
        embedding: (n, D) float32.
        is_positive: (n,).
        groups: (n,) integers; images of a group go into the same fold.
        separated_by: what groups are.
    """

    embedding: Floats
    is_positive: Mask
    groups: npt.NDArray[np.int64]
    separated_by: Separation


def fit_scorer(labelled: LabelledEmbeddings, background: Floats, positive: str, bundle: str) -> Scorer:
    """Fit a scorer; for 1,000 labels of 1,280 dimensions in below a second.

    Numbers of an embedding are divided by their deviation in the archive, not among the few labelled images. The
    strength of the regularisation is the one of smallest log loss over the folds.

    Args:
        labelled: the labelled images.
        background: embeddings (m, D) of any images of the archive, m of some thousands.
        positive: label of the positive ones.
        bundle: fingerprint of the bundle that made the embeddings.

    Raises:
        LabelError: all images are positive, or none is.
    """
    y = labelled.is_positive
    if y.all():
        raise LabelError(f"all {len(y)} labelled images are {positive!r}; label some that are not, too")
    if not y.any():
        raise LabelError(
            f"none of the {len(y)} labelled images that are in the index is {positive!r}; label some that are"
        )
    unit = _unit(background)
    mean, deviation = unit.mean(axis=0), (unit.std(axis=0) + TINY) * np.sqrt(unit.shape[1])
    x = (_unit(labelled.embedding) - mean) / deviation
    strength, estimate = _choose(x, labelled)
    weights, bias = _fit(x, y, strength)
    return Scorer(
        positive, bundle, (weights / deviation).astype(np.float32), float(bias - (weights / deviation) @ mean),
        int(y.sum()), int((~y).sum()), estimate,
    )  # fmt: skip


def _choose(x: Doubles | Floats, labelled: LabelledEmbeddings) -> tuple[float, Estimate | None]:
    """Choose the strength by cross-validation, and estimate how good the scorer is with it."""
    y, groups = labelled.is_positive, labelled.groups
    folds = min(FOLDS, len(np.unique(groups[y])), len(np.unique(groups[~y])))
    if min(y.sum(), (~y).sum()) < FEWEST or folds < 2:
        return DEFAULT_STRENGTH, None
    from sklearn.metrics import average_precision_score, log_loss  # noqa: PLC0415 -- slow, and only this needs it
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415

    parts = [
        (train, test)
        for train, test in StratifiedGroupKFold(folds).split(x, y, groups)
        if 0 < y[train].sum() < len(train)
    ]
    seen = np.concatenate([test for _, test in parts]) if parts else np.empty(0, np.int64)
    if not 0 < y[seen].sum() < len(seen):
        return DEFAULT_STRENGTH, None
    best = None
    for strength in STRENGTHS:
        p = np.empty(len(y))
        for train, test in parts:
            weights, bias = _fit(x[train], y[train], strength)
            p[test] = _probability(x[test] @ weights + bias)
        loss = float(log_loss(y[seen], p[seen]))
        if best is None or loss < best[0]:
            best = loss, strength, p[seen]
    _, strength, p = best if best is not None else (0.0, DEFAULT_STRENGTH, np.empty(0))
    hit, y = p >= 0.5, y[seen]
    precision = float(y[hit].mean()) if hit.any() else None
    found = Estimate(float(average_precision_score(y, p)), precision, float(hit[y].mean()), labelled.separated_by)
    return strength, found


def _fit(x: Doubles | Floats, y: Mask, strength: float) -> tuple[Doubles, float]:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 -- slow, and only this needs it

    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000).fit(x, y)
    return model.coef_[0], float(model.intercept_[0])


def _unit(embedding: Floats) -> Floats:
    unit: Floats = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
    return unit


def _probability(logit: npt.NDArray[np.floating[Any]]) -> Doubles:
    probability: Doubles = 1 / (1 + np.exp(-np.clip(logit.astype(np.float64), -50, 50)))
    return probability
