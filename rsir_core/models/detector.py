"""The detector: YOLOv5, and the objects that a key region may be centred on (paper sections 2.1.1 to 2.1.3).

The networks are built from ultralytics' YAML files: YOLOv5's backbone and neck with the anchor-free head that
ultralytics gives all its models. The head has no counterpart of the paper's prior boxes from K-means (section 2.1.2)
and of the regression from them (equations 1 and 2, the second of which is misprinted): it predicts the distances from a
grid point to the four sides of a box. Weights come from safetensors files only; nothing here uses the network.
"""

import contextlib
import itertools
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import fsspec
import numpy as np
import PIL.Image
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rsir_core.arrays import Pixels
from rsir_core.errors import StorageError, WeightsError
from rsir_core.models.letterbox import Letterbox, letterbox
from rsir_core.models.nms import suppress
from rsir_core.models.precision import describing_type
from rsir_core.models.regions import DetectedObject
from rsir_core.models.settings import DetectorSettings
from rsir_core.models.transfer import to_device
from rsir_core.storage.filesystem import reading_from

MODELS: Final = ("yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x")
CPU_IMAGES: Final = 16  # per forward pass on a CPU: the fastest of 8, 16 and 32 at 256 pixels
SCALED_PIXELS: Final = 16_000_000  # of equal images that are scaled together; 200 MB as floats
PADDING: Final = 114 / 255  # the grey that ultralytics pads with in training


class Detector:
    """Detect objects in images; the network is fused and stays on one device."""

    def __init__(
        self,
        settings: DetectorSettings,
        state: Mapping[str, Tensor],
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the network and load its weights.

        Args:
            settings: those it was trained with.
            state: its tensors.
            device: `cpu`, `cuda`, …
            dtype: of weights and activations; None: see `describing_type`.

        Raises:
            WeightsError: unknown model, or `state` does not fit this model and number of classes.
        """
        model = build_detector(settings.model, len(settings.classes))
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise WeightsError(
                f"these weights are not a {settings.model} of {len(settings.classes)} classes: {error}; "
                "give the bundle that jobs.finetune_detector wrote"
            ) from error
        self.settings = settings
        self._device = torch.device(device)
        self._dtype = dtype or describing_type(self._device)
        self._model = model.eval().requires_grad_(False).fuse(verbose=False)  # type: ignore[operator]
        self._model.to(self._device, self._dtype, memory_format=torch.channels_last)

    def detect(self, images: Sequence[Pixels]) -> list[DetectedObject | None]:
        """Detect the most confident object of each image, if its confidence is `min_score` or more.

        The best candidate is the first that non-maximum suppression would keep, so NMS is not needed.

        Args:
            images: n images, H×W×3 RGB uint8, of any sizes; n may be 0.

        Returns:
            n objects, None for an image without one. The result for an image does not depend on the others.
        """
        found: list[DetectedObject | None] = [None] * len(images)
        for members, laid, candidates in self._candidates(images):
            for i, into, (score, name, box) in zip(members, laid, _best(candidates), strict=True):
                if score >= self.settings.min_score:
                    found[i] = DetectedObject(into.to_image(box), score, self.settings.classes[name])
        return found

    def detect_all(self, images: Sequence[Pixels]) -> list[list[DetectedObject]]:
        """Detect all objects of each image, best first, after class-wise NMS; the first is the one that `detect` finds.

        Args:
            images: as `detect` takes them.

        Returns:
            n lists of at most `nms.MAX_OBJECTS` objects, each of `min_score` or more.
        """
        found: list[list[DetectedObject]] = [[] for _ in images]
        for members, laid, candidates in self._candidates(images):
            # NMS asks for some results of each image before it can go on, which a GPU would answer one by one.
            for i, into, of_image in zip(members, laid, candidates.cpu(), strict=True):
                found[i] = [
                    DetectedObject(into.to_image(box), score, self.settings.classes[name])
                    for score, name, box in suppress(of_image, self.settings.min_score)
                ]
        return found

    def _candidates(self, images: Sequence[Pixels]) -> Iterator[tuple[list[int], list[Letterbox], Tensor]]:
        """Run the network once per input size; yields positions of the images, their letterboxes, n × (4 + C) × A."""
        boxes = [letterbox(image.shape[0], image.shape[1], self.settings.image_size) for image in images]
        order = sorted(range(len(images)), key=lambda i: (boxes[i].height, boxes[i].width, boxes[i]))
        for _, group in itertools.groupby(order, key=lambda i: (boxes[i].height, boxes[i].width)):
            members = list(group)
            laid = [boxes[i] for i in members]
            yield members, laid, self._forward([images[i] for i in members], laid)

    @torch.inference_mode()
    def _forward(self, images: Sequence[Pixels], boxes: Sequence[Letterbox]) -> Tensor:
        size = CPU_IMAGES if self._device.type == "cpu" else len(images)
        parts: list[Tensor] = [
            self._model(self._lay_out(images[i : i + size], boxes[i : i + size]))[0]  # n × 3 × H × W
            for i in range(0, len(images), size)
        ]
        return torch.cat(parts)  # n × (4 + C) × A

    def _lay_out(self, images: Sequence[Pixels], boxes: Sequence[Letterbox]) -> Tensor:
        """Letterbox images into one n×3×H×W batch in 0..1; inputs are of one size, and equal images are adjacent."""
        shape = (len(images), 3, boxes[0].height, boxes[0].width)
        batch = torch.empty(shape, dtype=self._dtype, device=self._device, memory_format=torch.channels_last)
        if any(box.padded for box in boxes):
            batch.fill_(PADDING)
        start = 0
        for box, same in _equal_runs(boxes):
            stop = start + same
            pixels = to_device(images[start:stop], self._device).permute(0, 3, 1, 2)
            if box.scaled:
                pixels = nn.functional.interpolate(
                    pixels.float(), (box.scaled_height, box.scaled_width), mode="bilinear"
                )
            rows, columns = slice(box.top, box.top + box.scaled_height), slice(box.left, box.left + box.scaled_width)
            torch.mul(pixels, 1 / 255, out=batch[start:stop, :, rows, columns])  # one pass over memory
            start = stop
        return batch


def _equal_runs(boxes: Sequence[Letterbox]) -> Iterator[tuple[Letterbox, int]]:
    """Group adjacent equal letterboxes, with their number, which is limited by `SCALED_PIXELS`."""
    for box, same in itertools.groupby(boxes):
        rest, most = len(list(same)), max(1, SCALED_PIXELS // (box.image_height * box.image_width))
        while rest > 0:
            yield box, min(rest, most)
            rest -= most


@torch.inference_mode()
def _best(candidates: Tensor) -> list[tuple[float, int, list[float]]]:
    """Return each image's most confident candidate: its confidence, class number and box in the network's input."""
    n, _, a = candidates.shape  # n × (4 + C) × A
    score, place = candidates[:, 4:].reshape(n, -1).max(dim=1)  # n
    where = (place % a).view(n, 1, 1).expand(n, 4, 1)
    box = candidates[:, :4].gather(2, where).view(n, 4)
    columns = score[:, None], (place // a)[:, None], box
    rows = torch.cat([column.double() for column in columns], dim=1).tolist()  # at once: each `tolist` waits for a GPU
    return [(score, int(name), box) for score, name, *box in rows]


def build_detector(model: str, classes: int) -> nn.Module:
    """Build the untrained network of one of `MODELS`, with ultralytics' parameter names.

    Raises:
        WeightsError: unknown model, or no class.
    """
    if model not in MODELS or classes < 1:
        raise WeightsError(
            f"there is no detector {model!r} of {classes} classes; "
            f"models are {', '.join(MODELS)}, of at least one class"
        )
    with offline_ultralytics():
        from ultralytics.nn.tasks import DetectionModel  # noqa: PLC0415 -- writes settings when it is imported
    network: nn.Module = DetectionModel(f"{model}.yaml", nc=classes, verbose=False)
    return network


def load_start_weights(model: nn.Module, uri: str) -> int:
    """Load the tensors of a safetensors file that fit a network to be fine-tuned; see `take_start_weights`.

    Raises:
        WeightsError: the file cannot be read, or is of another network.
    """
    try:
        with reading_from(uri), fsspec.open(uri, "rb") as file:
            data = file.read()
        state = safetensors.torch.load(data)
    except (OSError, StorageError, safetensors.SafetensorError) as error:
        raise WeightsError(f"--weights {uri} cannot be read as safetensors: {error}; give a readable file") from error
    return take_start_weights(model, state, uri)


def take_start_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> int:
    """Load the tensors whose name and shape fit a network to be fine-tuned; returns how many were loaded.

    The head depends on the number of classes, so some of its tensors may not fit. If less than half of the weights fit,
    they belong to another network; a few tensors fit by chance, because some layers have the same width in several
    models.

    Raises:
        WeightsError: `state` belongs to another network.
    """
    current = model.state_dict()
    fitting = {n: tensor for n, tensor in state.items() if n in current and current[n].shape == tensor.shape}
    offered = sum(tensor.numel() for tensor in state.values())
    if not offered or sum(tensor.numel() for tensor in fitting.values()) < offered / 2:
        expected = next(iter(current))
        raise WeightsError(
            f"--weights {source}: {len(fitting)} of its {len(state)} tensors fit the network, whose first is "
            f"{expected} {tuple(current[expected].shape)}; give weights of the same --model"
        )
    model.load_state_dict(fitting, strict=False)
    return len(fitting)


@contextlib.contextmanager
def offline_ultralytics() -> Iterator[None]:
    """Let the body import ultralytics without it using the network, installing packages or writing to the home folder.

    On its first import ultralytics reads its environment and writes a settings file. Afterwards the environment is
    restored, the file is deleted, and ultralytics' replacements for `PIL.Image.open` (which would install a package
    when a file is no image) and `torch.save`, and its print options of NumPy, are undone. Its messages go to the
    `ultralytics` logger, warnings and above, without progress bars.
    """
    if "ultralytics" in sys.modules:
        yield
        return
    environment, printing = dict(os.environ), np.get_printoptions()
    image_open, save = PIL.Image.open, torch.save
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        switches = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
        os.environ.update(switches, YOLO_CONFIG_DIR=folder)
        try:
            from ultralytics.utils import LOGGER, SETTINGS  # noqa: PLC0415 -- see above

            off = {name: False for name, value in SETTINGS.items() if value is True}  # reports and trackers
            SETTINGS.update(off)
            LOGGER.handlers.clear()
            LOGGER.setLevel(logging.WARNING)
            LOGGER.propagate = True
            yield
        finally:
            os.environ.clear()
            os.environ.update(environment)
            np.set_printoptions(**printing)
            PIL.Image.open, torch.save = image_open, save
