"""Fine-tune the classifier through Ray Train, and write it into a model bundle."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy.typing as npt
import ray.data
from ray.train import (
    CheckpointConfig,
    ControllerError,
    FailureConfig,
    LoggingConfig,
    Result,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from safetensors.torch import save
from torch import Tensor

from jobs.command import Summary
from jobs.pipeline.cluster import joined
from jobs.training.calibrating import calibrate
from jobs.training.classifier import train_worker, trained_weights
from jobs.training.options import FinetuneClassifierConfig
from rsir_core.archive.labels import LabelledImage, label_images, split_images, split_to_csv
from rsir_core.archive.listing import list_images
from rsir_core.errors import ConfigError, ImageError, LabelError
from rsir_core.imagery.reading import Reading, reader_of
from rsir_core.models import bundle
from rsir_core.models.calibration import hold_out
from rsir_core.models.classifier import State, check_sides, settings_for, start_weights
from rsir_core.models.settings import ClassifierSettings
from rsir_core.storage.filesystem import file_system, make_folder

log = logging.getLogger("jobs.finetune_classifier")
# Without huge pages a quarter of the training's time went into the page faults of its large activations.
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
START_TRIES = 120  # of Ray Train to get its workers, of a minute each and over a whole training
RUN = "classifier-"  # and what of its settings has an effect
WITHOUT_EFFECT = (
    "json",
    "address",
    "models",
    "max_pixels",
    "image_seconds",
)  # on what is learnt: a run is resumed whatever they say


def why_unreadable(batch: dict[str, npt.NDArray[Any]], reading: Reading) -> dict[str, Any]:
    """Check files: columns `uri`, `refused` (by its store) and `message` (null: it can be read) for column `uri`."""
    # In a process of its own, as the index job reads: what hangs a decoder, or crashes it, is found out here.
    reader = reader_of(reading)
    found: dict[str, list[Any]] = {"uri": list(batch["uri"]), "refused": [], "message": []}
    for uri in batch["uri"]:
        (read,) = reader.read([(uri, reading.max_pixels)])
        error = read if isinstance(read, ImageError) else None
        found["message"].append(error and str(error))
        found["refused"].append(error is not None and error.is_refused)
    return found


def readable(images: Sequence[LabelledImage], reading: Reading) -> list[LabelledImage]:
    """Keep the images that can be read, and name the others on the log.

    Raises:
        LabelError: none can be read; or a store refuses some, which it may not do at the next try: that would be
            another training.
    """
    uris = ray.data.from_items([{"uri": image.uri} for image in images])
    found = uris.map_batches(partial(why_unreadable, reading=reading), batch_size=32).take_all()
    messages = {row["uri"]: row["message"] for row in found if row["message"] is not None}
    if refused := [row["message"] for row in found if row["refused"]]:
        raise LabelError(
            f"{len(refused)} training images are refused by their store, for example: {refused[0]}; "
            "check credentials and network, then run this again"
        )
    for message in messages.values():
        log.warning("left out: %s", message)
    if len(messages) == len(images):
        raise LabelError(
            f"none of the {len(images)} training images can be read, for example: {message}; check the archive"
        )
    return [image for image in images if image.uri not in messages]


def _check_taught(classes: Sequence[str], training: Sequence[LabelledImage]) -> None:
    """Make sure that the classifier learns all of its classes.

    Raises:
        LabelError: a class has no image to be trained on.
    """
    if untaught := sorted(set(classes) - {image.label for image in training}):
        raise LabelError(
            f"no training image of {', '.join(untaught)} can be read; mend them, or take them out of the archive"
        )


def finetune(config: FinetuneClassifierConfig) -> Summary:
    """Split, train, write the bundle."""
    began = time.monotonic()
    files = list(list_images(config.archive))
    etags, labelled = {file.uri: file.etag for file in files}, label_images(files, config.labels)
    images = split_images(labelled, config.train_fraction, config.seed, config.unseen or ())
    taught = [image for image in images if image.split == "train"]
    classes = sorted({image.label for image in taught})
    fraction, labels = config.calibration_fraction, [image.label for image in taught]
    training, held_out = hold_out(taught, labels, fraction, config.seed)
    settings = replace(settings_for(config.backbone, classes, config.image_size), views=config.views)
    check_sides(config.backbone, {config.image_size, config.recipe.side(config.image_size)})
    start = start_weights(config.backbone, config.weights)  # here, so that no other machine needs them
    make_folder("--models", config.models)
    detector = bundle.read_detector(config.models)  # here, as all else that may be wrong with it
    with joined(config.address, config.needs):
        can_be_read = set(readable(taught, Reading.of(config)))
        training, held_out = ([image for image in part if image in can_be_read] for part in (training, held_out))
        _check_taught(classes, training)
        state, metrics, folder = _train(config, settings, training, etags, start)
        settings, calibration = calibrate(config, settings, state, held_out, detector)
    fingerprint = bundle.write_classifier(config.models, settings, state, config.tau, split_to_csv(images))
    fs, path = file_system(folder)
    for name in fs.ls(path, detail=False):
        if name.rsplit("/", 1)[-1].startswith(RUN):  # only now: until then a killed job resumes from there
            fs.rm(name, recursive=True)
    return {
        "classes": len(classes),
        "images": len(training),
        "unreadable": len(taught) - len(can_be_read),
        "test_images": sum(image.split == "test" for image in images),
        "epochs": config.epochs,
        **{name: metrics[name] for name in ("loss", "train_accuracy")},
        **calibration,
        "seconds": round(time.monotonic() - began, 1),
        "fingerprint": fingerprint,
        "models": config.models,
    }


def _wanted(config: FinetuneClassifierConfig) -> str:
    gpus = f" and {config.num_gpus:g} GPUs" if config.num_gpus else ""
    return f"{config.workers} workers of {config.num_cpus} CPUs{gpus}"


def run_name(payload: Mapping[str, Any], etags: Sequence[str], start: State | None) -> str:
    """Name a training by all that would make it another one, so that a killed one is continued by the same only."""
    content = hashlib.sha256(json.dumps([payload, etags], sort_keys=True, default=str).encode())
    content.update(save(dict(start or {})))
    return f"{RUN}{content.hexdigest()[:12]}"


def _train(
    config: FinetuneClassifierConfig,
    settings: ClassifierSettings,
    images: Sequence[LabelledImage],
    etags: Mapping[str, str],
    start: State | None,
) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Run or resume the training; returns the weights, the last metrics and the folder of runs, which may now go.

    Args:
        config: of the job.
        settings: of the classifier.
        images: to train on.
        etags: of each of them, by URI.
        start: what the backbone begins with; None: initial values.

    Raises:
        LabelError, ConfigError: see `_fit`.
    """
    effective = {name: value for name, value in config.model_dump().items() if name not in WITHOUT_EFFECT}
    payload = {"config": effective, "classifier": asdict(settings), "images": list(images)}
    fs, path = file_system(f"{config.models.rstrip('/')}/training")  # absolute, as Ray Train wants it
    storage = path if "file" in fs.protocol else fs.unstrip_protocol(path)
    scaling = ScalingConfig(
        num_workers=config.workers,
        use_gpu=config.num_gpus > 0,
        resources_per_worker={"CPU": config.num_cpus, **({"GPU": config.num_gpus} if config.num_gpus else {})},
    )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={**payload, "config": config.model_dump(), "start": ray.put(start)},
        scaling_config=scaling,
        run_config=RunConfig(  # type: ignore[call-arg]  # its stub is of the version before
            name=run_name(payload, [etags[image.uri] for image in images], start),
            storage_path=storage,
            checkpoint_config=CheckpointConfig(num_to_keep=2),  # one while the next is written
            # A store's hiccup, or a worker that was killed; and minutes in which a cluster may grow.
            failure_config=FailureConfig(max_failures=2, controller_failure_limit=START_TRIES),  # type: ignore[call-arg]
            worker_runtime_env={"env_vars": HUGE_PAGES},
            logging_config=LoggingConfig("WARNING"),  # else five lines of Ray Train's around each epoch's own
        ),
    )
    result = _fit(trainer, _wanted(config))
    if result.checkpoint is None:
        raise RuntimeError("Ray Train reports no epoch, though there is one at least")
    with result.checkpoint.as_directory() as folder:
        state = trained_weights(folder)
    return state, result.metrics or {}, storage


def _fit(trainer: TorchTrainer, wanted: str) -> Result:
    """Run a training and return its result; `wanted` names the workers that it asks for, in words.

    Raises:
        LabelError: an image cannot be read any more.
        ConfigError: the loss is no number any more, or the workers never came.
    """
    try:
        return trainer.fit()
    except ControllerError as error:
        if not isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
            raise
        raise ConfigError(
            f"{wanted} were not there in {START_TRIES} tries of a minute; give fewer --workers, --num-cpus or "
            "--num-gpus, or let the cluster grow"
        ) from error
    except WorkerGroupError as error:
        causes = [getattr(cause, "_base_exc", cause) for cause in error.worker_failures.values()]  # as Ray wraps them
        if unread := [cause for cause in causes if isinstance(cause, ImageError)]:
            raise LabelError(
                f"{unread[0]}; once it is back as it was, the same command goes on with this epoch"
            ) from error
        if diverged := [cause for cause in causes if isinstance(cause, ConfigError)]:
            raise diverged[0] from error
        raise
