"""Fine-tune the classifier in one process, alone or as one of several; it goes on from the newest checkpoint."""

import io
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from rsir_core.archive.labels import LabelledImage
from rsir_core.arrays import Pixels
from rsir_core.errors import ConfigError, ImageError
from rsir_core.imagery.decode import read_picture
from rsir_core.models.augmentation import turned_views
from rsir_core.models.classifier import State, build_classifier, to_input
from rsir_core.models.depthwise import fast_depthwise
from rsir_core.models.precision import trains_in_bfloat16
from rsir_core.models.settings import ClassifierSettings
from rsir_core.training.distillation import Teacher, loss_of
from rsir_core.training.recipe import Recipe
from rsir_core.training.worker import Worker

log = logging.getLogger(__name__)
Sample = tuple[Pixels, int]  # an image H×W×3 and its class


@dataclass(frozen=True)
class Plan:
    """Say what is trained on what, and how.

    Attributes:
        images: to train on; all of them can be read.
        classifier: settings of the classifier.
        start: what the backbone begins with; None: initial values.
        recipe: parts of the training.
        tau: key region's share of height and width (paper eq. 5).
        epochs: passes over the images.
        batch_size: images per step and worker.
        learning_rate: peak, for AdamW.
        seed: of the initial head, and the order and augmentation of images.
        max_pixels: per image above which it is refused.
        threads: of each worker.
        workers: that share each epoch.
        readers: processes that read images for each worker; 0: it reads them itself, which is fast enough for a CPU.
        following: trainings that come after, for the time that is left, in lengths of this one.
        teacher: tensors of a trained classifier of the same settings, which the training also learns from; None: of
            the labels alone.
    """

    images: Sequence[LabelledImage]
    classifier: ClassifierSettings
    start: State | None
    recipe: Recipe
    tau: float
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    max_pixels: int
    threads: int
    workers: int
    readers: int
    following: float = 0
    teacher: State | None = None


class Trained(NamedTuple):
    """Hold what a checkpoint has of a training that is done: the tensors of `build_classifier`, and last figures."""

    weights: dict[str, Tensor]
    metrics: dict[str, float]


class Pictures(Dataset[Sample | ImageError]):
    """Labelled images, read when asked for; each has been read before, in a process of its own.

    An image that cannot be read any more is its error, which a loader's process could not raise as it is.
    """

    def __init__(self, images: Sequence[LabelledImage], classes: Sequence[str], max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self.samples = [(image.uri, classes.index(image.label)) for image in images]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample | ImageError:
        uri, label = self.samples[index]
        try:
            return read_picture(uri, self._max_pixels).pixels, label
        except ImageError as error:
            return error


@dataclass(frozen=True)
class Training:
    """Hold network, optimiser and schedule, which are stepped and saved together."""

    model: nn.Module  # as the worker wraps it
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.OneCycleLR

    @classmethod
    def begin(cls, model: nn.Module, learning_rate: float, steps: int) -> "Training":
        """Begin a training of a network with its start weights."""
        kernels, others = ([p for p in model.parameters() if (p.ndim > 1) is matrix] for matrix in (True, False))
        groups = [{"params": kernels, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        on_gpu = kernels[0].device.type == "cuda"  # where a step is one kernel then
        optimizer = torch.optim.AdamW(groups, learning_rate, fused=on_gpu)
        steps = max(steps, 2)  # the last is of rate 0
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.15)
        return cls(model, optimizer, schedule)

    def step(self, loss: Tensor) -> None:
        """Take one step down the loss."""
        self.optimizer.zero_grad()
        with fast_depthwise(loss.device):
            loss.backward()
        self.optimizer.step()
        self.schedule.step()

    def to_bytes(self, epoch: int, metrics: dict[str, float]) -> bytes:
        """Save the training as it is after an epoch."""
        parts: dict[str, Any] = {"model": _bare(self.model), "optimizer": self.optimizer, "schedule": self.schedule}
        file = io.BytesIO()
        states = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**states, "epoch": epoch, "metrics": metrics}, file)
        return file.getvalue()

    def restore(self, checkpoint: bytes | None) -> int:
        """Load a checkpoint, if there is one; returns the first epoch that is still to do."""
        if checkpoint is None:
            return 0
        state = _loaded(checkpoint)
        _bare(self.model).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        log.info("resuming after epoch %d", state["epoch"] + 1)
        return int(state["epoch"]) + 1


def trained(checkpoint: bytes) -> Trained:
    """Read weights and figures from the checkpoint of a training's last epoch."""
    state = _loaded(checkpoint)
    return Trained(state["model"], state["metrics"])


def average(trainings: Sequence[Trained]) -> Trained:
    """Average the weights and figures of trainings from one start.

    After Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time", ICML 2022, section 2 (the uniform soup).
    """

    def mean(tensors: Sequence[Tensor]) -> Tensor:
        first = tensors[0]  # counts of batches are whole numbers, and equal
        return torch.stack(list(tensors)).double().mean(0).to(first.dtype) if first.is_floating_point() else first

    weights = {name: mean([one.weights[name] for one in trainings]) for name in trainings[0].weights}
    figures = [one.metrics for one in trainings]
    return Trained(weights, {name: sum(one[name] for one in figures) / len(figures) for name in figures[0]})


def train(plan: Plan, worker: Worker) -> None:
    """Do one worker's share of a training; every epoch ends with a checkpoint.

    Raises:
        ConfigError: the loss is no number any more.
        ImageError: an image cannot be read any more.
    """
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    images = Pictures(plan.images, plan.classifier.classes, plan.max_pixels)
    loader = loader_of(images, plan, worker.share(images))
    model = build_classifier(plan.classifier.backbone, len(plan.classifier.classes))
    if plan.start is not None:
        model.backbone.load_state_dict(plan.start)
    steps = plan.epochs * len(loader)
    training = Training.begin(worker.wrap(model.to(memory_format=torch.channels_last)), plan.learning_rate, steps)
    views = TrainingViews(plan.classifier, plan.tau, plan.recipe)
    teacher = None if plan.teacher is None else Teacher(plan.classifier, plan.teacher, worker.device)
    first = training.restore(worker.newest())
    began = time.monotonic()
    for epoch in range(first, plan.epochs):
        # A resumed epoch sees what an undisturbed one would have seen, where no other processes read.
        seed = plan.seed * 10_000 + epoch
        torch.manual_seed(seed + worker.rank * 10**9)  # each worker turns its images in its own way
        if isinstance(loader.sampler, DistributedSampler):
            loader.sampler.set_epoch(seed)  # the order of images, which workers must agree on
        loss, accuracy = _train_epoch(training, loader, views, teacher, worker.device)
        still = (plan.following + 1) * plan.epochs - epoch - 1
        left = (time.monotonic() - began) / (epoch + 1 - first) * still
        if worker.rank == 0:
            words = "epoch %d/%d  loss %.3f  train accuracy %.3f  %.0f s left"
            log.info(words, epoch + 1, plan.epochs, loss, accuracy, left)
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} after epoch {epoch + 1}; pass less than --learning-rate {plan.learning_rate:g}"
            )
        metrics = {"loss": loss, "train_accuracy": accuracy}
        worker.report(epoch, metrics, partial(training.to_bytes, epoch, metrics))


def loader_of(images: Pictures, plan: Plan, share: DistributedSampler[Any] | None) -> DataLoader[Sample | ImageError]:
    """Load a share of the images, or all of them, in an order that chance chooses for each epoch."""
    full = len(images) > plan.batch_size * plan.workers  # else a worker's share is one batch, and that not full
    return DataLoader(
        images,
        plan.batch_size,
        shuffle=share is None,
        sampler=share,
        drop_last=full,
        collate_fn=list,
        num_workers=plan.readers,
        persistent_workers=plan.readers > 0,
        # Not forked from here: connections to stores, and CUDA, do not survive that.
        multiprocessing_context="forkserver" if plan.readers else None,
    )


@dataclass(frozen=True)
class TrainingViews:
    """Make a worker's training views: a share `tau` of the images' sides, as the classifier takes them."""

    classifier: ClassifierSettings
    tau: float
    recipe: Recipe

    def views(self, samples: Sequence[Sample], device: torch.device) -> Tensor:
        """Make one view of each image: N×3×S×S."""
        side = self.classifier.image_size
        x = to_input([pixels for pixels, _ in samples], self.classifier, device, round(side / self.tau))
        return turned_views(x, self.recipe.side(side), self.tau, self.recipe.zoom, self.recipe.turned)


def _train_epoch(
    training: Training, loader: Any, views: TrainingViews, teacher: Teacher | None, device: torch.device
) -> tuple[float, float]:
    """Train for one epoch; returns mean loss and accuracy."""
    training.model.train()
    count = 0
    losses, right = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(2))  # asked for at the end only
    for samples in loader:
        for sample in samples:
            if isinstance(sample, ImageError):
                raise sample
        x = views.views(samples, device).contiguous(memory_format=torch.channels_last)
        y = torch.tensor([label for _, label in samples], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=trains_in_bfloat16(device)):
            _, logits = training.model(x)
        taught = None if teacher is None else teacher.probabilities(x)
        loss = loss_of(logits.float(), y, views.recipe.smoothing, taught)
        training.step(loss)
        losses += loss.detach().double() * len(y)
        right += (logits.argmax(1) == y).sum()
        count += len(y)
    return losses.item() / count, right.item() / count


def _loaded(checkpoint: bytes) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(checkpoint), "cpu", weights_only=True)
    return state


def _bare(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
