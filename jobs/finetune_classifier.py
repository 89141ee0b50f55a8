"""Fine-tune the classifier on key regions through Ray Train, and write it into a model bundle."""

import hashlib
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import ray.data
import ray.train
import torch
from ray.data import ActorPoolStrategy
from ray.train import Checkpoint, CheckpointConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_data_loader, prepare_model
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from jobs.calibrating import calibrate
from jobs.cluster import joined
from jobs.config import FinetuneClassifierConfig, Summary, run
from rsir_core import bundle
from rsir_core.archive import list_images
from rsir_core.calibration import hold_out
from rsir_core.classifier import ClassifierSettings, build_classifier, load_start_weights, settings_for, to_input
from rsir_core.detector import Detector
from rsir_core.errors import ImageError, LabelError
from rsir_core.labels import LabelledImage, label_images, split_images, split_to_csv
from rsir_core.raster import read_picture
from rsir_core.regions import Region, key_region

log = logging.getLogger(__name__)
# Without huge pages a quarter of the training's time went into the page faults of its large activations.
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
Sample = tuple[npt.NDArray[np.uint8], int]  # a key region H×W×3 and its class


class FindRegions:
    """Stage: the key region of each image of a batch, or why it has none."""

    def __init__(self, models: str, tau: float, device: str) -> None:
        torch.set_num_threads(1)
        self.tau = tau
        found = bundle.read_detector(models)
        self.detector = None if found is None else Detector(*found, device)

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, list[Any]]:
        """Columns `uri`, `region` (x, y, width, height) and `message` (null: all went well) for column `uri`."""
        regions: list[Region | None] = []
        messages: list[str | None] = []
        for uri in batch["uri"]:
            try:
                pixels = read_picture(uri).pixels
                found = self.detector.detect([pixels])[0] if self.detector else None
                regions.append(key_region(pixels.shape[0], pixels.shape[1], found and found.box, self.tau))
                messages.append(None)
            except ImageError as error:
                regions.append(None)
                messages.append(str(error))
        return {"uri": list(batch["uri"]), "region": regions, "message": messages}


class KeyRegions(Dataset[Sample]):
    """Key regions of labelled images, read when asked for."""

    def __init__(self, images: Sequence[LabelledImage], regions: Mapping[str, Region], classes: Sequence[str]) -> None:
        self.samples = [(i.uri, regions[i.uri], classes.index(i.label)) for i in images if i.uri in regions]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        uri, r, label = self.samples[index]
        return read_picture(uri).pixels[r.y : r.y + r.height, r.x : r.x + r.width], label


def turn_and_zoom(x: Tensor) -> Tensor:
    """Turn each image of N×3×S×S by any angle, mirror half of them, zoom in up to 1.6 times: all valid from above."""
    angle = torch.rand(len(x)) * 2 * math.pi
    zoom = 1 / (1 + 0.6 * torch.rand(len(x)))
    mirror = torch.randint(0, 2, (len(x),)) * 2.0 - 1
    shift = (torch.rand(len(x), 2) * 2 - 1) * (1 - zoom)[:, None]
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
    theta = torch.stack(rows, 1).to(x.device)  # N×2×3
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def train_worker(settings: dict[str, Any]) -> None:
    """One worker's training; every epoch ends with a checkpoint, from which a killed run goes on."""
    config = FinetuneClassifierConfig(**settings["config"])
    classifier = ClassifierSettings(**settings["classifier"])
    torch.set_num_threads(config.num_cpus)
    torch.manual_seed(config.seed)
    images, device = KeyRegions(settings["images"], settings["regions"], classifier.classes), get_device()
    loader = prepare_data_loader(
        DataLoader(images, config.batch_size, shuffle=True, drop_last=len(images) > config.batch_size, collate_fn=list),
        move_to_device=False,
    )  # fmt: skip
    bare = build_classifier(classifier.backbone, len(classifier.classes))
    load_start_weights(bare, classifier.backbone, config.weights)
    model = prepare_model(bare.to(memory_format=torch.channels_last))
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=0.05)
    steps = config.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, steps, pct_start=0.15)
    first = _restore(model, optimizer, schedule)
    began = time.monotonic()
    for epoch in range(first, config.epochs):
        torch.manual_seed(config.seed * 10_000 + epoch)  # a resumed epoch sees what an undisturbed one would have seen
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        loss, accuracy = _train_epoch(model, loader, classifier, device, (optimizer, schedule))
        left = (time.monotonic() - began) / (epoch + 1 - first) * (config.epochs - epoch - 1)
        if ray.train.get_context().get_world_rank() == 0:
            print(
                f"epoch {epoch + 1}/{config.epochs}  loss {loss:.3f}  train accuracy {accuracy:.3f}  {left:.0f} s left"
            )
        _report(epoch, loss, accuracy, (model, optimizer, schedule))


def _train_epoch(
    model: nn.Module, loader: Any, classifier: ClassifierSettings, device: torch.device, steppers: tuple[Any, Any]
) -> tuple[float, float]:
    model.train()
    optimizer, schedule = steppers
    losses, right, seen = 0.0, 0, 0
    for samples in loader:
        x = turn_and_zoom(to_input([pixels for pixels, _ in samples], classifier, device))
        y = torch.tensor([label for _, label in samples], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            _, logits = model(x.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses, right, seen = losses + loss.item() * len(y), right + int((logits.argmax(1) == y).sum()), seen + len(y)
    return losses / seen, right / seen


def _bare(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _restore(model: nn.Module, optimizer: Any, schedule: Any) -> int:
    """Load the newest checkpoint of this run, if any; returns the first epoch that is still to do."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / "state.pt", weights_only=True)
    _bare(model).load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    log.info("resuming after epoch %d", state["epoch"] + 1)
    return int(state["epoch"]) + 1


def _report(epoch: int, loss: float, accuracy: float, parts: tuple[nn.Module, Any, Any]) -> None:
    metrics = {"epoch": epoch, "loss": loss, "train_accuracy": accuracy}
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report(metrics)
        return
    model, optimizer, schedule = parts
    with tempfile.TemporaryDirectory() as folder:
        state = {"model": _bare(model).state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "schedule": schedule.state_dict(), "epoch": epoch}, Path(folder) / "state.pt")
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def find_regions(config: FinetuneClassifierConfig, images: Sequence[LabelledImage]) -> dict[str, Region]:
    """Key region by uri of the images that can be read; the others are named on the log.

    Raises:
        LabelError: none can be read.
    """
    stage = ray.data.from_items([{"uri": image.uri} for image in images]).map_batches(
        FindRegions,
        fn_constructor_args=(config.models, config.tau, "cuda" if config.num_gpus else "cpu"),
        compute=ActorPoolStrategy(size=config.workers),
        batch_size=32,
        num_gpus=config.num_gpus or None,
        num_cpus=1,
    )
    rows = stage.take_all()
    for row in rows:
        if row["message"] is not None:
            log.warning("left out: %s", row["message"])
    regions = {row["uri"]: Region(*map(int, row["region"])) for row in rows if row["message"] is None}
    if not regions:
        raise LabelError(f"none of the {len(rows)} training images can be read, for example: {rows[0]['message']}")
    return regions


def finetune(config: FinetuneClassifierConfig) -> Summary:
    """Split, find key regions, train, write the bundle."""
    began = time.monotonic()
    images = split_images(label_images(list_images(config.archive), config.labels), config.train_fraction, config.seed)
    classes = sorted({image.label for image in images})
    training = [image for image in images if image.split == "train"]
    fraction, labels = config.calibration_fraction, [image.label for image in training]
    training, held_out = hold_out(training, labels, fraction, config.seed)
    settings = settings_for(config.backbone, classes, config.image_size)
    # Start weights that cannot be had should fail here, not in a worker an hour later.
    load_start_weights(build_classifier(config.backbone, len(classes)), config.backbone, config.weights)
    with joined(config.address):
        regions = find_regions(config, training)
        state, metrics, folder = _train(config, settings, training, regions)
        settings, calibration = calibrate(config, settings, state, held_out)
    fingerprint = bundle.write_classifier(config.models, settings, state, config.tau, split_to_csv(images))
    fs, path = fsspec.core.url_to_fs(folder)
    fs.rm(path, recursive=True)  # only now: until the bundle is written a killed job resumes from there
    return {
        "classes": len(classes),
        "images": len(regions),
        "test_images": len(images) - len(training) - len(held_out),
        "epochs": config.epochs,
        **{name: metrics[name] for name in ("loss", "train_accuracy")},
        **calibration,
        "seconds": round(time.monotonic() - began, 1),
        "fingerprint": fingerprint,
        "models": config.models,
    }


def _train(
    config: FinetuneClassifierConfig,
    settings: ClassifierSettings,
    images: Sequence[LabelledImage],
    regions: Mapping[str, Region],
) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Run or resume the training; returns the weights, the last metrics and the folder that may now go."""
    payload = {"config": asdict(config), "classifier": asdict(settings), "images": list(images), "regions": regions}
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
        raise LabelError(f"--epochs is {config.epochs}; at least one is needed")
    with result.checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / "state.pt", weights_only=True)["model"]
    return state, result.metrics or {}, f"{storage}/classifier-{name}"


if __name__ == "__main__":
    sys.exit(run(finetune, FinetuneClassifierConfig, "finetune_classifier"))
