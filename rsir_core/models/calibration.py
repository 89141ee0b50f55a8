"""Temperature scaling: divide the logits by one number so that class probabilities are frequencies.

After Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, sections 2 and 4.2. One
number for all classes does not change which class is the most probable.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from rsir_core.arrays import Ints

T = TypeVar("T")

BINS: Final = 15  # of confidence, as in that paper
MAX_LOG_T: Final = 3.0  # |ln T| that is searched: T from 0.05 to 20


def fit_temperature(logits: npt.NDArray[np.floating], labels: Ints) -> float:
    """Fit the temperature that minimises the negative log likelihood of images that were not trained on.

    ln T has a standard normal prior, which weighs as much as one image. Without it, images that are all classified
    correctly, which happens when there are few, would give T = 0.

    Args:
        logits: (n, C); log probabilities will do, as they differ from logits by a constant per row.
        labels: (n,), the true class of each.

    Raises:
        ValueError: there are no images, or a logit is not finite.
    """
    if not len(logits) or not np.isfinite(logits).all():
        raise ValueError(f"a temperature cannot be fitted to {len(logits)} images, or a logit is not finite")
    scores, chosen = logits.astype(np.float64), np.arange(len(labels))

    def loss(log_t: float) -> float:
        log_p = log_softmax(scores / np.exp(log_t), axis=1)
        return float(0.5 * log_t**2 - log_p[chosen, labels].sum())

    found = minimize_scalar(loss, bounds=(-MAX_LOG_T, MAX_LOG_T), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def expected_calibration_error(class_probabilities: npt.NDArray[np.floating], labels: Ints) -> float:
    """Compute the mean of |accuracy − confidence| over bins of equal width, weighted by their counts; 0 to 1.

    Args:
        class_probabilities: (n, C).
        labels: (n,).
    """
    confidence = class_probabilities.max(axis=1).astype(np.float64)
    right = class_probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)  # ((b - 1)/15, b/15]
    gaps = np.bincount(bins, right - confidence, BINS)  # count · (accuracy − confidence)
    return float(np.abs(gaps).sum() / len(labels))


def score_calibration(
    class_probabilities: npt.NDArray[np.floating], labels: Sequence[str], classes: Sequence[str], temperature: float
) -> dict[str, Any] | None:
    """Score how well probabilities match frequencies, with and without temperature scaling.

    Args:
        class_probabilities: (n, C), of logits that were divided by the temperature.
        labels: (n,); images whose label is not among the classes are left out.
        classes: (C,).
        temperature: of the classifier; 1: it was not calibrated.

    Returns:
        None if no image has a label among the classes.
    """
    place = {name: i for i, name in enumerate(classes)}
    known = np.array([label in place for label in labels], np.bool_)
    if not known.any():
        return None
    p, truth = class_probabilities[known].astype(np.float64), np.array([place[n] for n in labels if n in place])
    raw = softmax(temperature * np.log(np.maximum(p, np.finfo(np.float32).tiny)), axis=1)
    return {
        "temperature": temperature,
        "images": len(truth),
        "accuracy": float(np.mean(p.argmax(axis=1) == truth)),
        "confidence": float(p.max(axis=1).mean()),
        "ece": expected_calibration_error(p, truth),
        "ece_uncalibrated": expected_calibration_error(raw, truth),
    }


def hold_out(samples: Sequence[T], labels: Sequence[str], fraction: float, seed: int) -> tuple[list[T], list[T]]:
    """Split samples into a training and a calibration part.

    The latter takes the fraction of all samples, and about that of each label.

    Args:
        samples: to be split.
        labels: of the samples; each keeps at least one training sample.
        fraction: 0 to less than 1.
        seed: of the random choice within each label.
    """
    rng, names = np.random.default_rng(seed), np.asarray(labels)
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    counts = _shares([len(group) for group in groups], fraction)
    chosen = {int(i) for group, count in zip(groups, counts, strict=True) for i in rng.permutation(group)[:count]}
    kept = [sample for i, sample in enumerate(samples) if i not in chosen]
    return kept, [samples[i] for i in sorted(chosen)]


def _shares(sizes: Sequence[int], fraction: float) -> list[int]:
    """Round each size's share by largest remainders, so that the shares sum to the fraction of all."""
    exact = [min(fraction * size, size - 1) for size in sizes]
    counts = [int(share) for share in exact]
    rest = round(fraction * sum(sizes)) - sum(counts)
    by_remainder = sorted(range(len(sizes)), key=lambda i: counts[i] - exact[i])
    for i in [i for i in by_remainder if counts[i] < sizes[i] - 1][: max(rest, 0)]:
        counts[i] += 1
    return counts
