"""Seconds of an epoch of both trainings, by the jobs themselves: the difference of a longer and a shorter one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.demo.scenes import write_boxes
from tests.gpu.report import Report
from tests.gpu.setting import Setting


def train(setting: Setting, report: Report) -> None:
    """Train the classifier, then the detector, each with mixed precision where the device has it."""
    for name, job in (("classifier", train_classifier), ("detector", train_detector)):
        with report.measuring(f"{name}: an epoch"):
            report.need(10 * setting.seconds)
            measure(setting, report, name, job)


def measure(setting: Setting, report: Report, name: str, job: Callable[[Setting, int], dict[str, Any]]) -> None:
    """Train for one epoch and for more."""
    short = job(setting, 1)
    report.figure(f"{name}: a training of one epoch, all of it", short["seconds"], "s")
    if setting.size.epochs == 1:
        return
    long = job(setting, setting.size.epochs)
    seconds = (long["seconds"] - short["seconds"]) / (setting.size.epochs - 1)
    report.figure(f"{name}: an epoch of {long['images']} images", max(seconds, 1e-3), "s")
    report.figure(f"{name}: images per second of an epoch", long["images"] / max(seconds, 1e-3), "images/s")
    for key in ("loss", "train_accuracy", "map50"):
        if key in long:
            report.figure(f"{name}: {key} after {setting.size.epochs} epochs", long[key], "")


def train_classifier(setting: Setting, epochs: int) -> dict[str, Any]:
    """Run `jobs.finetune_classifier` on the drawn scenes."""
    from jobs.training.finetune_classifier import finetune  # noqa: PLC0415 -- needs pydantic
    from jobs.training.options import FinetuneClassifierConfig  # noqa: PLC0415 -- needs pydantic

    archive = setting.folder / "taught"
    for file in map(Path, setting.files):
        for i in range(setting.size.copies):
            copy = archive / file.parent.name / f"{file.stem}-{i}.jpg"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    config = FinetuneClassifierConfig(
        archive=str(archive), models=str(setting.folder / f"classifier{epochs}"),
        backbone=setting.size.backbones[0], weights="random", image_size=setting.size.classifier_side, epochs=epochs,
        batch_size=max(setting.size.batches[0], 8), calibration_fraction=0.0,
        num_gpus=float(setting.device.type == "cuda"), num_cpus=max(1, setting.cores - 1),
    )  # fmt: skip
    return dict(finetune(config))


def train_detector(setting: Setting, epochs: int) -> dict[str, Any]:
    """Run `jobs.finetune_detector` on drawn boxes."""
    from jobs.training.finetune_detector import finetune_detector  # noqa: PLC0415 -- needs ultralytics
    from jobs.training.options import FinetuneDetectorConfig  # noqa: PLC0415 -- needs pydantic

    data = setting.folder / "boxes" / "data.yaml"
    if not data.exists():
        write_boxes(data.parent, len(setting.scenes), seed=0)
    config = FinetuneDetectorConfig(
        data=str(data), models=str(setting.folder / f"detector{epochs}"), model="yolov5n", epochs=epochs,
        batch_size=max(setting.size.batches[0], 8), image_size=max(setting.size.detector_side, 64),
        num_gpus=int(setting.device.type == "cuda"), threads=setting.cores,
    )  # fmt: skip
    return dict(finetune_detector(config))
