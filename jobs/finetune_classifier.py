"""Fine-tune the classifier through Ray Train, and write it into a model bundle."""

import hashlib
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import fsspec
import numpy.typing as npt
import ray.data
from ray.train import CheckpointConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from jobs.cluster import joined
from jobs.command import Summary, run
from jobs.config import FinetuneClassifierConfig, split_list
from jobs.training.calibrating import calibrate
from jobs.training.classifier import averaged_weights, train_worker
from rsir_core import bundle
from rsir_core.archive import list_images
from rsir_core.calibration import hold_out
from rsir_core.classifier import ClassifierSettings, build_classifier, load_start_weights, settings_for
from rsir_core.errors import ImageError, LabelError
from rsir_core.labels import LabelledImage, label_images, split_images, split_to_csv
from rsir_core.raster import read_picture

log = logging.getLogger(__name__)
# Without huge pages a quarter of the training's time went into the page faults of its large activations.
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}


def why_unreadable(batch: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Stage: columns `uri` and `message` (null: it can be read) for column `uri`."""
    messages: list[str | None] = []
    for uri in batch["uri"]:
        try:
            read_picture(uri)
            messages.append(None)
        except ImageError as error:
            messages.append(str(error))
    return {"uri": list(batch["uri"]), "message": messages}


def readable(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Those that can be read; the others are named on the log.

    Raises:
        LabelError: none can be read.
    """
    uris = ray.data.from_items([{"uri": image.uri} for image in images])
    found = uris.map_batches(why_unreadable, batch_size=32).take_all()  # type: ignore[arg-type]
    messages = {row["uri"]: row["message"] for row in found if row["message"] is not None}
    for message in messages.values():
        log.warning("left out: %s", message)
    if len(messages) == len(images):
        raise LabelError(f"none of the {len(images)} training images can be read, for example: {message}")
    return [image for image in images if image.uri not in messages]


def finetune(config: FinetuneClassifierConfig) -> Summary:
    """Split, train, write the bundle."""
    began = time.monotonic()
    labelled = label_images(list_images(config.archive), config.labels)
    images = split_images(labelled, config.train_fraction, config.seed, split_list(config.unseen))
    training = [image for image in images if image.split == "train"]
    classes = sorted({image.label for image in training})
    fraction, labels = config.calibration_fraction, [image.label for image in training]
    training, held_out = hold_out(training, labels, fraction, config.seed)
    settings = replace(settings_for(config.backbone, classes, config.image_size), views=config.views)
    # Start weights that cannot be had should fail here, not in a worker an hour later.
    load_start_weights(build_classifier(config.backbone, len(classes)), config.backbone, config.weights)
    with joined(config.address):
        training = readable(training)
        state, metrics, folder = _train(config, settings, training)
        settings, calibration = calibrate(config, settings, state, held_out)
    fingerprint = bundle.write_classifier(config.models, settings, state, config.tau, split_to_csv(images))
    fs, path = fsspec.core.url_to_fs(folder)
    fs.rm(path, recursive=True)  # only now: until the bundle is written a killed job resumes from there
    return {
        "classes": len(classes),
        "images": len(training),
        "test_images": sum(image.split == "test" for image in images),
        "epochs": config.epochs,
        **{name: metrics[name] for name in ("loss", "train_accuracy")},
        **calibration,
        "seconds": round(time.monotonic() - began, 1),
        "fingerprint": fingerprint,
        "models": config.models,
    }


def _train(
    config: FinetuneClassifierConfig, settings: ClassifierSettings, images: Sequence[LabelledImage]
) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Run or resume the training; returns the weights, the last metrics and the folder that may now go."""
    payload = {"config": asdict(config), "classifier": asdict(settings), "images": list(images)}
    name = hashlib.sha256(json.dumps(payload, sort_keys=True, default=str).encode()).hexdigest()[:12]
    fs, path = fsspec.core.url_to_fs(f"{config.models.rstrip('/')}/training")  # absolute, as Ray Train wants it
    storage = path if "file" in fs.protocol else fs.unstrip_protocol(path)
    scaling = ScalingConfig(
        num_workers=config.workers,
        use_gpu=config.num_gpus > 0,
        resources_per_worker={"CPU": config.num_cpus, **({"GPU": config.num_gpus} if config.num_gpus else {})},
    )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=payload,
        scaling_config=scaling,
        run_config=RunConfig(  # type: ignore[call-arg]  # its stub is of the version before
            name=f"classifier-{name}",
            storage_path=storage,
            checkpoint_config=CheckpointConfig(num_to_keep=2),  # one while the next is written
            worker_runtime_env={"env_vars": HUGE_PAGES},
        ),
    )
    result = trainer.fit()
    if result.checkpoint is None:
        raise RuntimeError("Ray Train reports no epoch, though there is one at least")
    with result.checkpoint.as_directory() as folder:
        state = averaged_weights(folder)
    return state, result.metrics or {}, f"{storage}/classifier-{name}"


if __name__ == "__main__":
    sys.exit(run(finetune, FinetuneClassifierConfig, "finetune_classifier"))
