"""Train a classifier's head on the stored embeddings of an index, without reading an image."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jobs.command import Summary
from jobs.training.options import FinetuneClassifierConfig
from rsir_core import schemas
from rsir_core.archive.labels import LabelledImage, label_images, split_images, split_to_csv
from rsir_core.archive.listing import ImageFile
from rsir_core.arrays import Floats, Ints
from rsir_core.errors import BundleError
from rsir_core.index.index import Index
from rsir_core.models.bundle import have_equal, read_detector, write_classifier, write_detector
from rsir_core.models.calibration import fit_temperature, hold_out
from rsir_core.storage.filesystem import make_folder
from rsir_core.training.head import fit_head

log = logging.getLogger("jobs.finetune_classifier")


def finetune_head(config: FinetuneClassifierConfig) -> Summary:
    """Split the labelled images, fit the head, calibrate it, and write the index's bundle with it.

    Raises:
        LabelError: labels and images do not go together.
        TableError, BundleError: there is no such index, or it has lost its models.
        BundleError: the bundle to write has another detector.
    """
    began = time.monotonic()
    index = Index(str(config.embeddings))
    columns = [schemas.IMAGE_ID, schemas.URI, schemas.ETAG, schemas.BUNDLE]
    features = index.features(columns=columns)
    named = (features[column].to_pylist() for column in columns[:3])
    files = [ImageFile(image_id, uri, etag, -1) for image_id, uri, etag in zip(*named, strict=True)]
    images = split_images(
        label_images(files, config.labels), config.train_fraction, config.seed, config.unseen or ()
    )  # fmt: skip
    taught = [image for image in images if image.split == "train"]
    training, held_out = hold_out(taught, [i.label for i in taught], config.calibration_fraction, config.seed)
    bundle = index.bundle(features[schemas.BUNDLE][0].as_py())
    make_folder("--models", config.models)
    there = read_detector(config.models)
    if there is not None and not (there[0] == bundle.detector and have_equal(there[1], bundle.detector_state)):
        raise BundleError(f"--models {config.models} has another detector than {index.uri}; name an empty folder")
    classes = sorted({image.label for image in taught})
    place = {uri: i for i, uri in enumerate(features[schemas.URI].to_pylist())}

    def rows(chosen: Sequence[LabelledImage]) -> tuple[Floats, Ints]:
        taken = features.take([place[image.uri] for image in chosen])
        return index.embeddings(taken), np.array([classes.index(image.label) for image in chosen], np.int64)

    head = fit_head(*rows(training), len(classes))
    settings = replace(bundle.classifier, classes=tuple(classes), temperature=1.0, source="")
    if held_out:
        embedding, labels = rows(held_out)
        logits = embedding @ head["weight"].numpy().T + head["bias"].numpy()
        settings = replace(settings, temperature=fit_temperature(logits, labels))
    else:
        log.warning("no training image was held out: the class probabilities are not calibrated")
    if bundle.detector is not None:
        write_detector(config.models, bundle.detector, bundle.detector_state)
    state = {**bundle.classifier_state, **{f"head.{name}": tensor for name, tensor in head.items()}}
    return {
        "classes": len(classes),
        "images": len(training),
        "test_images": len(images) - len(taught),
        "temperature": settings.temperature,
        "calibration_images": len(held_out),
        "seconds": round(time.monotonic() - began, 1),
        "fingerprint": write_classifier(config.models, settings, state, bundle.tau, split_to_csv(images)),
        "models": config.models,
    }
