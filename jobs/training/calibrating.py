"""Calibrate a trained classifier on held-out training images, through the same pipeline stage that describes."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from jobs.pipeline.cluster import rows_of
from jobs.pipeline.stage import Pool, Stage, build_dataset
from jobs.training.options import FinetuneClassifierConfig
from rsir_core import schemas
from rsir_core.archive.labels import LabelledImage
from rsir_core.arrays import Floats, Ints
from rsir_core.imagery.reading import Reading, images_of, listing_of
from rsir_core.models.bundle import Bundle, State
from rsir_core.models.calibration import expected_calibration_error, fit_temperature
from rsir_core.models.describe import Describer
from rsir_core.models.settings import ClassifierSettings, DetectorSettings

log = logging.getLogger(__name__)
BATCH = 32  # images per forward pass
RECOMMENDED_IMAGES = 50  # fewer are used all the same, with a warning


class Classify:
    """Stage work: classify images with a bundle that is not written yet; unreadable images are left out."""

    def __init__(self, models: Any, device: str) -> None:
        torch.set_num_threads(1)
        self.describer = Describer(ray.get(models), device)

    def __call__(self, read: pa.Table) -> pa.Table:
        """Classify read rows: columns `position`, `label` and `class_probabilities` (C)."""
        for message in read[schemas.MESSAGE].drop_null().to_pylist():
            log.warning("left out: %s", message)
        good = read.filter(read["pixels"].is_valid())
        p = schemas.to_vectors(self.describer.describe(images_of(good)).class_probabilities)
        return good.select(["position", "label"]).append_column(schemas.CLASS_PROBABILITIES, p)


def calibrate(
    config: FinetuneClassifierConfig,
    settings: ClassifierSettings,
    state: State,
    held_out: Sequence[LabelledImage],
    detector: tuple[DetectorSettings, State] | None,
) -> tuple[ClassifierSettings, dict[str, Any]]:
    """Fit the temperature; returns the settings with it, and figures for the job's summary.

    The detector is that of the bundle which the classifier is written to, if there is one. `ece_after` is measured on
    the images that the temperature was fitted to; fitting a single number biases it little.
    """
    models = Bundle(settings, detector and detector[0], config.tau, "", state, detector[1] if detector else {})
    p, labels = _classify(config, models, held_out)
    if not len(labels):
        log.warning(
            "no training image was held out: the class probabilities are not calibrated; see --calibration-fraction"
        )
        return settings, {"temperature": 1.0, "ece_before": None, "ece_after": None, "calibration_images": 0}
    if len(labels) < RECOMMENDED_IMAGES:
        log.warning("the temperature comes from %d images only; see --calibration-fraction", len(labels))
    scores = np.log(np.maximum(p.astype(np.float64), np.finfo(np.float32).tiny))  # the logits up to a constant
    temperature = fit_temperature(scores, labels)
    after = np.exp(scores / temperature)
    return replace(settings, temperature=temperature), {
        "temperature": temperature,
        "ece_before": expected_calibration_error(p, labels),
        "ece_after": expected_calibration_error(after / after.sum(axis=1, keepdims=True), labels),
        "calibration_images": len(labels),
    }


def _classify(config: FinetuneClassifierConfig, models: Bundle, images: Sequence[LabelledImage]) -> tuple[Floats, Ints]:
    """Classify the images that can be read, in their order: class probabilities (n, C) and labels (n,)."""
    classes = models.classifier.classes
    if not images:
        return np.empty((0, len(classes)), np.float32), np.empty(0, np.int64)
    labels = [classes.index(image.label) for image in images]
    asked = listing_of([image.uri for image in images], position=range(len(images)), label=labels)
    stage = build_dataset(
        Stage(Reading.of(config), Classify, (ray.put(models),)), Pool(config.workers, config.num_gpus, BATCH), asked
    )
    # Sorted, because actors finish in any order and sums in another order would change the temperature.
    found = sorted(rows_of(stage), key=lambda row: row["position"])
    p = np.array([row[schemas.CLASS_PROBABILITIES] for row in found], np.float32).reshape(-1, len(classes))
    return p, np.array([row["label"] for row in found], np.int64)
