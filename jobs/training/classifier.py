"""One Ray Train worker's share of fine-tuning the classifier; it goes on from the newest checkpoint after a kill."""

import logging
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
import ray.train
import torch
from ray.train import Checkpoint
from ray.train.torch import get_device, prepare_data_loader, prepare_model
from ray.train.v2._internal.execution import context
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from jobs.training.options import FinetuneClassifierConfig
from rsir_core.archive.labels import LabelledImage
from rsir_core.arrays import Pixels
from rsir_core.errors import ConfigError
from rsir_core.imagery.decode import read_picture
from rsir_core.models.augmentation import turned_views
from rsir_core.models.classifier import build_classifier, to_input
from rsir_core.models.depthwise import fast_depthwise
from rsir_core.models.precision import trains_in_bfloat16
from rsir_core.models.settings import ClassifierSettings
from rsir_core.training.recipe import Recipe

log = logging.getLogger(__name__)
Sample = tuple[Pixels, int]  # an image H×W×3 and its class
STATE: Final = "state.pt"


class Pictures(Dataset[Sample]):
    """Labelled images, read when asked for; each has been read before, in a process of its own, see `readable`."""

    def __init__(self, images: Sequence[LabelledImage], classes: Sequence[str], max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self.samples = [(image.uri, classes.index(image.label)) for image in images]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        uri, label = self.samples[index]
        return read_picture(uri, self._max_pixels).pixels, label


@dataclass(frozen=True)
class Training:
    """Hold network, optimiser and schedule, which are stepped and saved together."""

    model: nn.Module  # as Ray Train wraps it
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.OneCycleLR

    @classmethod
    def begin(cls, bare: nn.Module, learning_rate: float, steps: int) -> "Training":
        """Begin a training of a network with its start weights."""
        model = prepare_model(bare.to(memory_format=torch.channels_last))
        kernels, others = ([p for p in model.parameters() if (p.ndim > 1) is matrix] for matrix in (True, False))
        groups = [{"params": kernels, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, learning_rate)
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

    def save(self, folder: str, epoch: int) -> None:
        """Save the training as one file."""
        parts: dict[str, Any] = {"model": _bare(self.model), "optimizer": self.optimizer, "schedule": self.schedule}
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "epoch": epoch}, Path(folder) / STATE)

    def restore(self) -> int:
        """Load the newest checkpoint of this run, if any; returns the first epoch that is still to do."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return 0
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / STATE, "cpu", weights_only=True)
        _bare(self.model).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        log.info("resuming after epoch %d", state["epoch"] + 1)
        return int(state["epoch"]) + 1


def trained_weights(folder: str) -> dict[str, Tensor]:
    """Load the tensors of `build_classifier` from a saved training."""
    state: dict[str, Tensor] = torch.load(Path(folder) / STATE, "cpu", weights_only=True)["model"]
    return state


def train_worker(settings: dict[str, Any]) -> None:
    """Train in one worker; every epoch ends with a checkpoint."""
    # Ray Train's own line for each report, which its `LoggingConfig` does not reach: the logger has its file's name.
    logging.getLogger(context.__file__).setLevel(logging.WARNING)
    config = FinetuneClassifierConfig(**settings["config"])
    classifier = ClassifierSettings(**settings["classifier"])
    torch.set_num_threads(config.num_cpus)
    torch.manual_seed(config.seed)
    images, rank = (
        Pictures(settings["images"], classifier.classes, config.max_pixels),
        ray.train.get_context().get_world_rank(),
    )
    full = len(images) > config.batch_size * config.workers  # else a worker's share is one batch, and that not full
    loader = prepare_data_loader(
        DataLoader(images, config.batch_size, shuffle=True, drop_last=full, collate_fn=list), move_to_device=False
    )
    bare = build_classifier(classifier.backbone, len(classifier.classes))
    start = ray.get(settings["start"])
    if start is not None:
        bare.backbone.load_state_dict(start)
    training = Training.begin(bare, config.learning_rate, config.epochs * len(loader))
    first = training.restore()
    began = time.monotonic()
    for epoch in range(first, config.epochs):
        seed = config.seed * 10_000 + epoch  # a resumed epoch sees what an undisturbed one would have seen
        torch.manual_seed(seed + rank * 10**9)  # each worker turns its images in its own way
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(seed)  # the order of images, which workers must agree on
        loss, accuracy = _train_epoch(training, loader, TrainingViews(classifier, config.tau, config.recipe))
        left = (time.monotonic() - began) / (epoch + 1 - first) * (config.epochs - epoch - 1)
        if rank == 0:
            words = "epoch %d/%d  loss %.3f  train accuracy %.3f  %.0f s left"
            log.info(words, epoch + 1, config.epochs, loss, accuracy, left)  # Ray Train says what is printed twice
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} after epoch {epoch + 1}; pass less than --learning-rate {config.learning_rate:g}"
            )
        _report({"epoch": epoch, "loss": loss, "train_accuracy": accuracy}, training)


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
        return turned_views(x, self.recipe.side(side), self.tau, self.recipe.turned)


def _train_epoch(training: Training, loader: Any, seen: TrainingViews) -> tuple[float, float]:
    """Train for one epoch; returns mean loss and accuracy."""
    training.model.train()
    device = get_device()
    losses, right, count = 0.0, 0, 0
    for samples in loader:
        x = seen.views(samples, device).contiguous(memory_format=torch.channels_last)
        y = torch.tensor([label for _, label in samples], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=trains_in_bfloat16(device)):
            _, logits = training.model(x)
        loss = functional.cross_entropy(logits.float(), y, label_smoothing=seen.recipe.smoothing)
        training.step(loss)
        losses, count = losses + loss.item() * len(y), count + len(y)
        right += int((logits.argmax(1) == y).sum())
    return losses / count, right / count


def _bare(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _report(metrics: dict[str, Any], training: Training) -> None:
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        training.save(folder, metrics["epoch"])
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))
