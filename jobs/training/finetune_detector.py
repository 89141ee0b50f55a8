"""Fine-tune YOLOv5 on boxes and write it into a model bundle (paper table 1, offline step 1)."""

import hashlib
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any, Final

import torch
from fsspec.implementations.local import LocalFileSystem
from torch import nn

from jobs.command import Summary
from jobs.training.options import FinetuneDetectorConfig
from rsir_core.archive.listing import etag_of
from rsir_core.boxes.data import BoxData, BoxedImage, read_boxes, state_of
from rsir_core.errors import ConfigError, ImageError, LabelError, StorageError, WeightsError
from rsir_core.imagery.decode import read_picture
from rsir_core.models.bundle import State, write_detector
from rsir_core.models.detector import (
    load_start_weights,
    offline_ultralytics,
    take_start_weights,
)
from rsir_core.models.letterbox import STRIDE
from rsir_core.models.precision import trains_in_bfloat16
from rsir_core.models.settings import DetectorSettings
from rsir_core.storage.filesystem import file_system, make_folder

log = logging.getLogger("jobs.finetune_detector")
_WITHOUT_EFFECT: Final = (  # on the weights
    "json", "models", "data", "num_gpus", "threads", "min_score", "rule", "trained_side",
)  # fmt: skip


def finetune_detector(config: FinetuneDetectorConfig) -> Summary:
    """Train, or continue a killed training of the same settings and boxes, and write the best epoch into the bundle.

    Best by `val`; what that epoch is worth is then found out on `test`, once, where the data.yaml has it.

    Raises:
        ConfigError: a setting that cannot be.
        LabelError: the data.yaml or the labels are missing or contradictory, or an image cannot be read.
        WeightsError: the start weights cannot be read or are of another network.
    """
    start = time.monotonic()
    _check(config)
    data = read_boxes(config.data)
    _check_pixels(data.test)
    make_folder("--models", config.models)
    folder = _run_folder(config, data)
    with offline_ultralytics():
        from rsir_core.training.detector import epochs_done, read_best  # noqa: PLC0415 -- not before it is offline
    if epochs_done(folder) < config.epochs:
        _train(config, data, folder)
    state, scores = read_best(folder)
    settings = DetectorSettings(
        config.model, data.names, config.image_size, config.min_score, config.rule, config.trained_side
    )
    fingerprint = write_detector(config.models, settings, state)
    test = _score(config, data, settings, state)
    _clear(folder)
    return {
        "models": config.models,
        "fingerprint": fingerprint,
        "model": config.model,
        "classes": len(data.names),
        "images": len(data.train),
        "boxes": sum(len(image.boxes) for image in data.train),
        "val_images": len(data.val),
        "epochs": config.epochs,
        "best_epoch": scores["epoch"],
        "map50": scores["map50"],
        "map50_per_class": scores["map50_per_class"],
        "test_images": len(data.test),
        **{f"test_{name}": value for name, value in test.items()},
        "seconds": round(time.monotonic() - start, 1),
    }


def _check(config: FinetuneDetectorConfig) -> None:
    if config.image_size < 2 * STRIDE or config.image_size % STRIDE:
        raise ConfigError(f"image-size is {config.image_size}; it must be a multiple of {STRIDE} from {2 * STRIDE} up")
    if config.num_gpus not in (0, 1):
        raise ConfigError(f"num-gpus is {config.num_gpus}; the detector trains on one GPU (1) or on CPUs (0)")
    if config.num_gpus > torch.cuda.device_count():
        raise ConfigError("num-gpus is 1, but no GPU can be used here; give 0 to train on CPUs")


def _check_pixels(images: list[BoxedImage]) -> None:
    """Read those that only the score reads, which would else fail once hours of training are over."""
    for image in images:
        try:
            read_picture(image.file)
        except ImageError as error:
            raise LabelError(f"{error}; mend it, or take it out of the data.yaml's test images") from error


def _run_folder(config: FinetuneDetectorConfig, data: BoxData) -> Path:
    """Choose where the run keeps its checkpoints: those of a killed run with the same settings, or none.

    Beside the bundle's files where these are local, so that the same command finds it again; else in the user's cache.
    """
    fs, path = file_system(config.models)
    if isinstance(fs, LocalFileSystem):
        folder = Path(path) / "training" / "detector"
    else:
        folder = Path.home() / ".cache" / "rsir" / hashlib.sha256(config.models.encode()).hexdigest()[:16] / "detector"
    settings = {k: v for k, v in config.model_dump().items() if k not in _WITHOUT_EFFECT}
    content = json.dumps({**settings, "data": data.digest(), "start": _state_of_start(config.weights)})
    note = folder / "settings.json"
    if not note.is_file() or note.read_text() != content:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(content)
    return folder


def _state_of_start(weights: str | None) -> str:
    """Identify the content of the start weights; empty: there are none, or none that can be read."""
    if weights is None or "://" not in weights:
        return state_of(weights or "")
    try:
        return etag_of(weights)[0]
    except (OSError, StorageError):
        return ""  # which loading them will say


def _clear(folder: Path) -> None:
    """Remove the run's checkpoints, which are pickles, and with the last run the folder that held them."""
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _train(config: FinetuneDetectorConfig, data: BoxData, folder: Path) -> None:
    from rsir_core.training.detector import BoxTrainer, epochs_done  # noqa: PLC0415 -- see the caller

    done = epochs_done(folder)
    trainer = BoxTrainer(data, _overrides(config, folder, folder / "weights" / "last.pt" if done else None))
    torch.set_num_threads(config.threads)  # after the trainer, which sets it to its own idea
    if done:
        log.info("continuing after epoch %d of %d", done, config.epochs)
    else:
        model = trainer.get_model(f"{config.model}.yaml")  # after the trainer was made, which sets the seed
        if config.weights:
            log.info("starting from %d tensors of %s", _start(model, config.weights), config.weights)
        trainer.model = model
    trainer.train()  # type: ignore[no-untyped-call]


def _score(config: FinetuneDetectorConfig, data: BoxData, settings: DetectorSettings, state: State) -> dict[str, Any]:
    if not data.test:
        return {}
    from rsir_core.training.detector_scoring import score_boxes  # noqa: PLC0415 -- offline by now

    log.info("scoring the best epoch on the %d test images", len(data.test))
    device = "cuda" if config.num_gpus else "cpu"
    scores = score_boxes(settings, state, data.test, 2 * config.batch_size, device)
    of_classes = ", ".join(f"{name} {score:.2f}" for name, score in scores["map50_per_class"].items())
    log.info("mAP50 on the test images: %.3f (%s)", scores["map50"], of_classes)
    return scores


def _overrides(config: FinetuneDetectorConfig, folder: Path, last: Path | None) -> dict[str, Any]:
    """Build the recipe: ultralytics' own for its model size, with what aerial images and small sets ask for."""
    return {
        "model": f"{config.model}.yaml",
        "data": config.data,
        "epochs": config.epochs,
        "batch": config.batch_size,
        "nbs": config.batch_size,  # a step per batch: collecting 64 images first leaves small sets with too few steps
        "imgsz": config.image_size,
        "flipud": 0.5,  # seen from above there is no up
        "seed": config.seed,
        "patience": config.epochs,  # no early end, so that an epoch count says when a run is done
        "device": "0" if config.num_gpus else "cpu",
        "workers": config.threads if config.num_gpus else 0,
        # with float16 it would download a model to check itself on; on CPUs see `Bfloat16Model`
        "amp": "bf16" if config.num_gpus and trains_in_bfloat16(torch.device("cuda")) else False,
        "plots": False,
        "verbose": False,
        "save_dir": str(folder),
        "resume": str(last) if last else False,
    }


def _start(model: nn.Module, weights: str) -> int:
    if not weights.endswith(".pt"):
        return load_start_weights(model, weights)
    from ultralytics.nn.tasks import load_checkpoint  # noqa: PLC0415 -- offline since the trainer was imported

    if not Path(weights).is_file():  # else ultralytics looks for it on the network
        raise WeightsError(f"--weights {weights} does not exist; give a file of this machine")
    try:
        saved, _ = load_checkpoint(weights)
    except Exception as error:  # a pickle may raise anything
        raise WeightsError(f"--weights {weights} cannot be read as ultralytics' checkpoint: {error}") from error
    return take_start_weights(model, saved.state_dict(), weights)
