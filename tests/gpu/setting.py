"""What is measured on: a bundle and JPEGs that the script makes itself, and how large."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from jobs.demo.scenes import CLASSES, OBJECT_CLASSES, draw_scene
from rsir_core.arrays import Pixels
from rsir_core.models import bundle
from rsir_core.models.classifier import build_classifier, settings_for, to_input
from rsir_core.models.detector import build_detector
from rsir_core.models.fusion import fold_batch_norms
from rsir_core.models.settings import DetectorSettings
from tests.support.models import lively_detector, settle

TILE = 256  # pixels a side of the drawn scenes
SETTLING = 28  # images by which the statistics of batch normalisations are set


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        scenes: drawn per class, of which there are 14.
        large: side in pixels of the large pictures.
        detectors: models whose speed is measured, the bundle's first.
        backbones: likewise.
        detector_side: pixels of the detector's input.
        classifier_side: pixels of the classifier's input.
        batches: images per forward pass.
        clients: that upload at the same time.
        actors: of the pipeline, which share the device.
        pipeline_seconds: that a run of the pipeline should take.
        most: images of a run of the pipeline.
        epochs: of the longer of two trainings; the shorter has one. With one there is no longer one.
        copies: of each scene, half of which are trained on.
    """

    scenes: int = 10
    large: int = 2048
    detectors: tuple[str, ...] = ("yolov5n", "yolov5x")
    backbones: tuple[str, ...] = ("efficientnet_lite0", "resnet50")
    detector_side: int = 256
    classifier_side: int = 224
    batches: tuple[int, ...] = (32, 128, 512)
    clients: tuple[int, ...] = (1, 16, 64)
    actors: tuple[int, ...] = (1, 2, 3)
    pipeline_seconds: float = 10.0
    most: int = 200_000
    epochs: int = 4
    copies: int = 16

    @property
    def middle(self) -> int:
        """The batch size at which all is compared."""
        return self.batches[len(self.batches) // 2]


TINY = Size(
    scenes=2, large=512, detectors=("yolov5n",), backbones=("efficientnet_lite0",), detector_side=64,
    classifier_side=64, batches=(2,), clients=(1, 2), actors=(1,), pipeline_seconds=0.1, most=24, epochs=1, copies=1,
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Say where and on what it is measured.

    Attributes:
        device: that is measured; `cpu` rehearses.
        seconds: per measurement.
        size: how much is measured.
        folder: for files.
        cores: of this machine.
        dollars: of this machine, per hour.
        core_dollars: of a core of a machine without a GPU, per hour.
    """

    device: torch.device
    seconds: float
    size: Size
    folder: Path
    cores: int
    dollars: float
    core_dollars: float

    @cached_property
    def scenes(self) -> list[Pixels]:
        """Drawn scenes of all classes, of 256 × 256 pixels each."""
        seeds = [(c, i) for c in range(len(CLASSES)) for i in range(self.size.scenes)]
        return [draw_scene(CLASSES[c], np.random.default_rng((1, c, i))).pixels for c, i in seeds]

    @cached_property
    def large(self) -> list[Pixels]:
        """Large pictures, of scenes side by side."""
        across = self.size.large // TILE
        tiles = iter(range(4 * across * across))
        rows = [[self.scenes[next(tiles) % len(self.scenes)] for _ in range(across)] for _ in range(4 * across)]
        whole = np.concatenate([np.concatenate(row, axis=1) for row in rows])
        return np.split(whole, 4)

    @cached_property
    def odd(self) -> list[Pixels]:
        """Pictures of several sizes, which cannot go together."""
        shapes = [(TILE, TILE), (200, 256), (256, 180), (100, 100), (90, 240)]
        return [np.ascontiguousarray(self.scenes[i][:h, :w]) for i, (h, w) in enumerate(shapes)]

    @cached_property
    def files(self) -> list[str]:
        """JPEG files of the scenes, in folders of their classes."""
        found = []
        for i, pixels in enumerate(self.scenes):
            file = self.folder / "archive" / CLASSES[i // self.size.scenes] / f"{i:05}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(as_jpeg(pixels))
            found.append(str(file))
        return found

    def many(self, count: int) -> list[Pixels]:
        """So many scenes, again and again the same."""
        return [self.scenes[i % len(self.scenes)] for i in range(count)]

    @cached_property
    def models(self) -> bundle.Bundle:
        """The bundle of the first detector and backbone, which was written and read; one view per image."""
        folder = str(self.folder / "models")
        detector, backbone = self.size.detectors[0], self.size.backbones[0]
        objects = tuple(OBJECT_CLASSES)
        settings = DetectorSettings(detector, objects, self.size.detector_side, min_score=1e-6)
        bundle.write_detector(folder, settings, lively_detector(len(objects)))
        classifier = settings_for(backbone, CLASSES, self.size.classifier_side)
        network = build_classifier(backbone, len(CLASSES))
        settle(network, to_input(self.scenes[:: max(1, len(self.scenes) // SETTLING)], classifier, torch.device("cpu")))
        bundle.write_classifier(folder, classifier, network.state_dict(), 0.9, "uri,label,split\n")
        return bundle.load_bundle(folder)

    def networks(self) -> Iterator[tuple[str, nn.Module, int]]:
        """Each model's name, its network with random weights as it describes, and the side of its input."""
        for name in self.size.detectors:
            network = build_detector(name, len(OBJECT_CLASSES)).eval().requires_grad_(False)
            yield name, network.fuse(verbose=False), self.size.detector_side  # type: ignore[operator]
        for name in self.size.backbones:
            yield name, fold_batch_norms(build_classifier(name, len(CLASSES))), self.size.classifier_side


def as_jpeg(pixels: Pixels) -> bytes:
    """Encode a picture as archives have them."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()
