"""Calibrate a trained classifier on held-out training images."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from rsir_core import schemas
from rsir_core.archive.labels import LabelledImage
from rsir_core.arrays import Floats, Ints
from rsir_core.imagery.reading import Reading, images_of, listing_of, read_batches
from rsir_core.models.bundle import Bundle
from rsir_core.models.calibration import expected_calibration_error, fit_temperature
from rsir_core.models.describe import Describer
from rsir_core.models.settings import ClassifierSettings

BATCH: Final = 32  # images per forward pass
RECOMMENDED_IMAGES: Final = 20  # fewer are used all the same, with a warning

log = logging.getLogger(__name__)


def calibrate(
    bundle: Bundle, images: Sequence[LabelledImage], reading: Reading, device: str = "cpu"
) -> tuple[ClassifierSettings, dict[str, Any]]:
    """Fit the temperature; returns the classifier's settings with it, and figures for the job's summary.

    `held_out_accuracy` is that of the classifier as it will be written, which may be the mean of several. `ece_after`
    is measured on the images that the temperature was fitted to; fitting a single number biases it little.

    Args:
        bundle: as it will be written, with the detector, if it has one.
        images: that the classifier was not trained on; those that cannot be read are left out.
        reading: how they are read.
        device: where they are classified.
    """
    p, labels = _classify(Describer(bundle, device), images, reading)
    if not len(labels):
        log.warning(
            "no training image was held out: the class probabilities are not calibrated; see --calibration-fraction"
        )
        unknown = dict.fromkeys(("held_out_accuracy", "ece_before", "ece_after"))
        return bundle.classifier, {"temperature": 1.0, "calibration_images": 0, **unknown}
    if len(labels) < RECOMMENDED_IMAGES:
        log.warning("images that the temperature comes from: %d, which is few; see --calibration-fraction", len(labels))
    scores = np.log(np.maximum(p.astype(np.float64), np.finfo(np.float32).tiny))  # the logits up to a constant
    temperature = fit_temperature(scores, labels)
    after = np.exp(scores / temperature)
    return replace(bundle.classifier, temperature=temperature), {
        "temperature": temperature,
        "held_out_accuracy": float((p.argmax(axis=1) == labels).mean()),
        "ece_before": expected_calibration_error(p, labels),
        "ece_after": expected_calibration_error(after / after.sum(axis=1, keepdims=True), labels),
        "calibration_images": len(labels),
    }


def _classify(describer: Describer, images: Sequence[LabelledImage], reading: Reading) -> tuple[Floats, Ints]:
    """Classify the images that can be read: class probabilities (n, C) and labels (n,)."""
    classes = describer.bundle.classifier.classes
    labels = [classes.index(image.label) for image in images]
    found, of = [np.empty((0, len(classes)), np.float32)], list[int]()
    for read in read_batches(listing_of([image.uri for image in images], label=labels), reading, BATCH):
        for message in read[schemas.MESSAGE].drop_null().to_pylist():
            log.warning("left out: %s", message)
        good = read.filter(read["pixels"].is_valid())
        if len(good):
            found.append(describer.describe(images_of(good)).class_probabilities)
            of += good["label"].to_pylist()
    return np.concatenate(found), np.array(of, np.int64)
