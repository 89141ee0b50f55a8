"""Fine-tune the classifier, in this process or on a cluster by Ray Train, and write it into a model bundle."""

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any, Final

import torch
from safetensors.torch import save

from jobs.command import Summary
from jobs.pipeline.resources import is_on_cluster
from jobs.training.options import FinetuneClassifierConfig
from jobs.training.readable_images import readable
from rsir_core.archive.labels import LabelledImage, label_images, split_images, split_to_csv
from rsir_core.archive.listing import list_images
from rsir_core.errors import ConfigError, ImageError, LabelError, WeightsError
from rsir_core.extras import require
from rsir_core.imagery.reading import Reading
from rsir_core.models import bundle
from rsir_core.models.backbones import input_side
from rsir_core.models.calibration import hold_out
from rsir_core.models.classifier import State, check_sides, settings_for, start_weights
from rsir_core.models.settings import ClassifierSettings
from rsir_core.storage.filesystem import file_system, make_folder, names_in
from rsir_core.training.calibrating import calibrate
from rsir_core.training.classifier import Plan, Trained, average, train, trained
from rsir_core.training.recipe import Recipe, recipe_without
from rsir_core.training.schedule import choose_epochs
from rsir_core.training.worker import LocalWorker

log = logging.getLogger("jobs.finetune_classifier")
# Without huge pages a quarter of the training's time went into the page faults of its large activations.
HUGE_PAGES: Final = {"THP_MEM_ALLOC_ENABLE": "1"}
RUN: Final = "classifier-"  # and what of its settings has an effect
# On what one training learns: a run is resumed whatever they say, by what began it, this process or a cluster.
WITHOUT_EFFECT: Final = (
    "json", "verbose", "address", "models", "max_pixels", "image_seconds", "trainings", "students",
)  # fmt: skip
STUDENT: Final = 1.3  # times as long as a training without a teacher
SEEDS_APART: Final = 1000  # of trainings whose weights are averaged


def _check_taught(classes: Sequence[str], training: Sequence[LabelledImage]) -> None:
    """Make sure that the classifier learns all of its classes.

    Raises:
        LabelError: a class has no image to be trained on.
    """
    if untaught := sorted(set(classes) - {image.label for image in training}):
        raise LabelError(
            f"no training image of {', '.join(untaught)} can be read; mend them, or leave "
            f"the class out (--unseen {','.join(untaught)})"
        )


def finetune(config: FinetuneClassifierConfig) -> Summary:
    """Split, train, write the bundle.

    One worker on this machine trains in this process, without Ray; on a cluster, or by several workers, Ray Train does.
    """
    if config.embeddings is not None:
        from jobs.training.finetune_head import finetune_head  # noqa: PLC0415 -- brings Delta Lake

        return finetune_head(config)
    began = time.monotonic()
    os.environ.update(HUGE_PAGES)  # before PyTorch allocates anything
    files = list(list_images(config.archive))
    etags, labelled = {file.uri: file.etag for file in files}, label_images(files, config.labels)
    images = split_images(labelled, config.train_fraction, config.seed, config.unseen or ())
    taught = [image for image in images if image.split == "train"]
    classes = sorted({image.label for image in taught})
    side = config.image_size or input_side(config.backbone)
    settings = replace(settings_for(config.backbone, classes, side), views=config.views)
    recipe = _recipe(config, side)
    start = start_weights(config.backbone, config.weights)  # here, so that no other machine needs them
    make_folder("--models", config.models)
    detector = bundle.read_detector(config.models)  # here, as all else that may be wrong with it
    reading, on_cluster = Reading.of(config), config.workers > 1 or is_on_cluster(config.address)
    with _session(config, on_cluster):
        known = readable(taught, reading, on_cluster)
        _check_taught(classes, known)
        labels = [image.label for image in known]
        training, held_out = hold_out(known, labels, config.calibration_fraction, config.seed)
        plan = _plan(config, settings, training, start, recipe)
        log.info("%s", _in_words(config, plan))
        done = _train_all(config, plan, etags, on_cluster)
    state, (detects, detector_state) = done.weights, detector or (None, {})
    models = bundle.Bundle(settings, detects, config.tau, "", state, detector_state)
    settings, calibration = calibrate(models, held_out, reading, _device(config))
    fingerprint = bundle.write_classifier(config.models, settings, state, config.tau, split_to_csv(images))
    _clear(config.models)
    return {
        "classes": len(classes),
        "images": len(training),
        "unreadable": len(taught) - len(known),
        "test_images": len(images) - len(taught),
        "epochs": plan.epochs,
        "epochs_chosen": _why(config, plan),
        "trainings": config.number_of_trainings,
        "students": config.students,
        "image_size": side,
        **done.metrics,
        **calibration,
        "seconds": round(time.monotonic() - began, 1),
        "fingerprint": fingerprint,
        "models": config.models,
    }


def _session(config: FinetuneClassifierConfig, on_cluster: bool) -> AbstractContextManager[None]:
    """Join the cluster; this process alone joins nothing, but its machine must have the GPU that is asked for.

    Raises:
        ConfigError: it has none, or Ray Train's packages are missing.
    """
    if on_cluster:
        from jobs.pipeline.cluster import joined  # noqa: PLC0415 -- brings Ray, which this process alone does not need

        require("tensorboardX")
        return joined(config.address, config.needs, config.verbose)
    if config.num_gpus > torch.cuda.device_count():
        raise ConfigError(
            f"{config.needs.options} needs {config.num_gpus:g} GPUs of which there are {torch.cuda.device_count()} on "
            "this machine; ask for less, or run it on a cluster (--address)"
        )
    return nullcontext()


def _device(config: FinetuneClassifierConfig) -> str:
    """Choose where this process computes; a cluster's GPUs may all be elsewhere."""
    return "cuda" if config.num_gpus and torch.cuda.is_available() else "cpu"


def run_name(
    payload: Mapping[str, Any], etags: Sequence[str], start: State | None, teacher: State | None = None
) -> str:
    """Name a training by all that would make it another one, so that a killed one is continued by the same only."""
    content = hashlib.sha256(json.dumps([payload, etags], sort_keys=True, default=str).encode())
    content.update(save(dict(start or {})))
    if teacher is not None:
        content.update(save(dict(teacher)))
    return f"{RUN}{content.hexdigest()[:12]}"


def _recipe(config: FinetuneClassifierConfig, side: int) -> Recipe:
    """Build the recipe without the parts that are left out, or that the backbone cannot have.

    Raises:
        WeightsError: the backbone does not take images of this side.
    """
    check_sides(config.backbone, {side})
    recipe = recipe_without(config.without)
    try:
        check_sides(config.backbone, {recipe.side(side)})
    except WeightsError:
        log.info("%s takes %d×%d pixels only: training views are not made smaller", config.backbone, side, side)
        return recipe_without((*config.without, "smaller"))
    return recipe


def _in_words(config: FinetuneClassifierConfig, plan: Plan) -> str:
    """Say what is trained on what, for the log."""
    counts = Counter(image.label for image in plan.images)
    (most, most_count), *_, (fewest, fewest_count) = counts.most_common()
    return (
        f"{len(plan.images)} training images of {len(counts)} classes ({fewest_count} of {fewest} to {most_count} of "
        f"{most}), {plan.epochs} passes ({_why(config, plan)}), {plan.classifier.image_size}×"
        f"{plan.classifier.image_size} pixels"
    )


def _why(config: FinetuneClassifierConfig, plan: Plan) -> str:
    """Say who chose the number of epochs."""
    return f"chosen for {len(plan.images)} images" if config.epochs is None else "as --epochs says"


def _plan(
    config: FinetuneClassifierConfig,
    settings: ClassifierSettings,
    images: Sequence[LabelledImage],
    start: State | None,
    recipe: Recipe,
) -> Plan:
    return Plan(
        images=images,
        classifier=settings,
        start=start,
        recipe=recipe,
        tau=config.tau,
        epochs=config.epochs or choose_epochs(len(images)),
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
        max_pixels=config.max_pixels,
        threads=config.num_cpus,
        workers=config.workers,
        readers=config.num_cpus if config.num_gpus else 0,
    )


def _train_all(config: FinetuneClassifierConfig, plan: Plan, etags: Mapping[str, str], on_cluster: bool) -> Trained:
    """Run or continue all trainings of a plan; average what they have learned, or else what their students have."""
    trainings, count = config.number_of_trainings, config.number_of_trainings + config.students

    def train_one(number: int, teacher: State | None) -> Trained:
        if count > 1:
            taught = "" if teacher is None else f", taught by the mean of the first {trainings}"
            log.info("training %d of %d%s", number + 1, count, taught)
        left = count - number - 1 if teacher is not None else trainings - number - 1 + STUDENT * config.students
        one = replace(plan, seed=plan.seed + number * SEEDS_APART, following=left, teacher=teacher)
        return _train(config, one, etags, on_cluster)

    mean = average([train_one(number, None) for number in range(trainings)])
    students = [train_one(number, mean.weights) for number in range(trainings, count)]
    return average(students) if students else mean


def _train(config: FinetuneClassifierConfig, plan: Plan, etags: Mapping[str, str], on_cluster: bool) -> Trained:
    """Run or continue a training of images whose etags are given by URI.

    Raises:
        LabelError: an image cannot be read any more.
        ConfigError: the loss is no number any more, or a cluster's workers never came.
    """
    effective = {name: value for name, value in config.model_dump().items() if name not in WITHOUT_EFFECT}
    settings, images = asdict(plan.classifier), list(plan.images)
    payload = {
        "config": effective, "seed": plan.seed, "classifier": settings, "images": images,
        "recipe": asdict(plan.recipe), "epochs": plan.epochs,
    }  # fmt: skip
    name = run_name(payload, [etags[image.uri] for image in plan.images], plan.start, plan.teacher)
    folder = f"{_runs(config.models)}/{name}"
    if plan.seed == config.seed and plan.teacher is None:  # the job's first
        _tell_of_others(config.models, name)
    try:
        if on_cluster:
            from jobs.training.distributed import train_on_cluster  # noqa: PLC0415 -- Ray Train

            return trained(train_on_cluster(config, plan, folder, HUGE_PAGES))
        worker = LocalWorker(folder, torch.device(_device(config)))
        train(plan, worker)
    except ImageError as error:
        raise LabelError(f"{error}; once it is back as it was, the same command goes on with this epoch") from error
    checkpoint = worker.newest()
    if checkpoint is None:
        raise RuntimeError("no epoch is saved, though there is one at least")
    return trained(checkpoint)


def _runs(models: str) -> str:
    return f"{models.rstrip('/')}/training"


def _tell_of_others(models: str, name: str) -> None:
    """Say on the log if there are checkpoints, but not of this run."""
    runs = [run for run in names_in(_runs(models)) if run.startswith(RUN)]
    if runs and name not in runs:
        log.warning(
            "%s has checkpoints of a training with other options or images (%s): this one begins anew",
            _runs(models),
            ", ".join(runs),
        )


def _clear(models: str) -> None:
    """Remove the checkpoints of all runs: until the bundle is written, a killed job resumes from there."""
    fs, path = file_system(_runs(models))
    for name in fs.ls(path, detail=False):
        if name.rsplit("/", 1)[-1].startswith(RUN):
            fs.rm(name, recursive=True)
