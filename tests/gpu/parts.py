"""Images per second of each part but the networks: decoding, the copy to the device, and what is done there."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from rsir_core.imagery.decode import decode
from rsir_core.imagery.reading import Reading, listing_of, read_batches
from rsir_core.models.classifier import Classifier, to_input
from rsir_core.models.describe import Describer
from rsir_core.models.detector import Detector
from rsir_core.models.letterbox import letterbox
from rsir_core.models.transfer import to_device
from tests.gpu.report import Report
from tests.gpu.setting import Setting, as_jpeg
from tests.gpu.timing import per_second

READING = Reading(100_000_000, 120.0)
READ = 32  # images of a batch that is read
CPU = torch.device("cpu")


def decoding(setting: Setting, report: Report) -> None:
    """Read and decode on the cores, as the pipeline does."""
    data = [Path(file).read_bytes() for file in setting.files]
    rate = per_second(lambda: [decode(one, "a tile") for one in data], len(data), setting.seconds, CPU)
    report.figure("decoder alone, one core", rate, "images/s")
    large = [file.read_bytes() for file in large_files(setting)]
    rate = per_second(lambda: [decode(one, "a picture") for one in large], len(large), setting.seconds, CPU)
    report.figure(f"decoder alone, one core, {setting.size.large} × {setting.size.large}", rate, "images/s")
    with ProcessPoolExecutor(setting.cores, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(read_for, [setting.files] * setting.cores, [0.0] * setting.cores))  # loads
        for name, cores in (("one core", 1), ("all cores", setting.cores)):
            rate = sum(pool.map(read_for, [setting.files] * cores, [setting.seconds] * cores))
            report.figure(f"read and decode into a table, {name}", rate, "images/s")


def large_files(setting: Setting) -> list[Path]:
    """Write the large pictures."""
    files = [setting.folder / f"large{i}.jpg" for i in range(len(setting.large))]
    for file, pixels in zip(files, setting.large, strict=True):
        file.write_bytes(as_jpeg(pixels))
    return files


def read_for(files: list[str], seconds: float) -> float:
    """Read files, again and again, as a reading task does; images per second."""
    listing, count, began = listing_of(files), 0, time.perf_counter()
    while count == 0 or time.perf_counter() - began < seconds:
        count += sum(len(batch) for batch in read_batches(listing, READING, READ))
    return count / (time.perf_counter() - began)


def copying(setting: Setting, report: Report) -> None:
    """Copy images to the device, in the ways that there are."""
    device, count = setting.device, setting.size.batches[-1]
    images = setting.many(count)
    stacked = torch.from_numpy(np.stack(images))
    ways: dict[str, Callable[[], object]] = {
        "copy of stacked images, pageable": lambda: stacked.to(device, copy=True),
        "stack and copy, as rsir does": lambda: to_device(images, device),
    }
    if device.type == "cuda":
        locked = stacked.pin_memory()
        ways["copy of stacked images, page-locked"] = lambda: locked.to(device, non_blocking=True)
    for name, way in ways.items():
        rate = per_second(way, count, setting.seconds, device)
        report.figure(name, rate, f"images/s ({rate * images[0].nbytes / 1e9:.1f} GB/s)")


def describing(setting: Setting, report: Report) -> None:
    """Letterbox, resize, detect and classify on the device, from ordinary arrays."""
    device, models, count = setting.device, setting.models, setting.size.batches[-1]
    images = setting.many(count)
    assert models.detector is not None
    detector = Detector(models.detector, models.detector_state, str(device))
    classifier = Classifier(models.classifier, models.classifier_state, str(device))
    side = setting.size.detector_side
    unscaled, scaled = ([np.ascontiguousarray(image[:n, :n]) for image in images] for n in (side, 200))
    boxes = {n: [letterbox(n, n, side)] * count for n in (side, 200)}
    crops = [image[13:243, 13:243] for image in images]
    odd = (setting.odd * count)[:count]
    few = images[:READ]
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "letterbox, not scaled": (lambda: detector._lay_out(unscaled, boxes[side]), count),
        "letterbox, scaled": (lambda: detector._lay_out(scaled, boxes[200]), count),
        "crop, copy and resize for the classifier": (lambda: to_input(crops, models.classifier, device), count),
        "the same, of pictures of five sizes": (lambda: to_input(odd, models.classifier, device), count),
        "detector, from arrays": (lambda: detector.detect(images), count),
        "detector with all objects and NMS, from arrays": (lambda: detector.detect_all(few), len(few)),
        "classifier, from arrays, one view": (lambda: classifier.embed(crops, 1), count),
        "classifier, from arrays, two views": (lambda: classifier.embed(crops, 2), count),
    }
    for name, (way, of) in ways.items():
        title = f"{name}, {of} at once"
        with report.measuring(title):
            report.need(2 * setting.seconds)
            report.figure(title, per_second(way, of, setting.seconds, device), "images/s")
    for batch in setting.size.batches:
        for threads in (1, 2):
            title = f"both models, from arrays, {batch} at once, threads: {threads}"
            with report.measuring(title):
                report.need(2 * setting.seconds)
                report.figure(title, in_threads(setting, batch, threads), "images/s")


def in_threads(setting: Setting, batch: int, threads: int) -> float:
    """Describe in threads, whose Python works while the device works for another; images per second."""
    describers = [Describer(setting.models, str(setting.device)) for _ in range(threads)]
    images = setting.many(batch)
    with ThreadPoolExecutor(threads) as pool:
        return per_second(
            lambda: list(pool.map(lambda one: one.describe(images), describers)),
            batch * threads, setting.seconds, setting.device,
        )  # fmt: skip
