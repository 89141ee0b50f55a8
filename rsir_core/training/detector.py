"""ultralytics' trainer, on boxes that are read already and with a checkpoint that a kill cannot damage.

Import it inside `offline_ultralytics()`, after which nothing here reaches for the network, fonts or trackers.
"""

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import unwrap_model

from rsir_core.boxes.data import BoxData, BoxedImage
from rsir_core.errors import ImageError, LabelError
from rsir_core.imagery.decode import read_picture
from rsir_core.models.letterbox import STRIDE
from rsir_core.models.precision import trains_in_bfloat16

log = logging.getLogger(__name__)
BEST: Final = "best.safetensors"
_QUIET_SECONDS: Final = 30.0  # at most so long without a line of progress


class BoxDataset(YOLODataset):
    """Load the images of one split, labelled as `read_boxes` read them."""

    ims: Any  # ultralytics fills these with None first
    im_hw0: Any
    im_hw: Any

    def get_img_files(self, img_path: str | list[str]) -> list[str]:
        """List the files of the split called `img_path`."""
        return [image.file for image in self._images()]

    def get_labels(self) -> list[dict[str, Any]]:
        """List the boxes of each file, in the form that ultralytics' transforms take."""
        return [
            {
                "im_file": image.file,
                "shape": (image.height, image.width),
                "cls": image.classes,
                "bboxes": image.boxes,
                "segments": [],
                "keypoints": None,
                "normalized": True,
                "bbox_format": "xywh",
            }
            for image in self._images()
        ]

    def load_image(
        self, i: int, rect_mode: bool = True, resize_short: bool = False
    ) -> tuple[Any, tuple[int, int], tuple[int, int]]:
        """Load pixels (BGR), their size and that of the file, scaled so that the longer side is the network's.

        The reader is that of the index, so that the detector learns of pixels as it will see them: ultralytics' own
        takes the upper 8 of 16 bits, multiplies by alpha, and knows fewer formats.
        """
        if self.ims[i] is not None:  # one of those that mosaics are made of
            cached: tuple[Any, tuple[int, int], tuple[int, int]] = self.ims[i], self.im_hw0[i], self.im_hw[i]
            return cached
        try:
            pixels = np.ascontiguousarray(read_picture(self.im_files[i]).pixels[..., ::-1])
        except ImageError as error:  # whose arguments a process of ultralytics' loader would lose
            raise LabelError(f"{error}; mend it, or take it out of the data.yaml's images") from error
        height, width = pixels.shape[:2]
        scale = self.imgsz / max(height, width)
        shape = min(math.ceil(height * scale), self.imgsz), min(math.ceil(width * scale), self.imgsz)
        scaled = cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_LINEAR)
        if self.augment:
            self.ims[i], self.im_hw0[i], self.im_hw[i] = scaled, (height, width), shape
            self.buffer.append(i)
            if 1 < len(self.buffer) >= self.max_buffer_length:
                self.ims[self.buffer.pop(0)] = None
        return scaled, (height, width), shape

    def _images(self) -> list[BoxedImage]:
        images: list[BoxedImage] = self.data["images"][self.img_path]
        return images


class Bfloat16Model(DetectionModel):
    """Run the network in bfloat16 on a CPU; ultralytics does that on GPUs only."""

    def loss(self, batch: Any, preds: Any = None) -> Any:
        """Compute the loss as its parent does; weights and gradients stay float32."""
        with torch.autocast("cpu", torch.bfloat16):
            return super().loss(batch, preds)  # type: ignore[no-untyped-call]


class BoxTrainer(DetectionTrainer):
    """Train on `BoxData`; after each epoch the folder holds `weights/last.pt` and, of the best so far, `BEST`."""

    model: Any  # ultralytics sets these to something else before it has them
    ema: Any
    metrics: Any
    tloss: Any
    validator: Any

    def __init__(self, data: BoxData, overrides: Mapping[str, Any]) -> None:
        self._data = data
        self._batches = 0
        self._next_line = time.monotonic() + _QUIET_SECONDS
        super().__init__(overrides=dict(overrides))
        self.add_callback("on_train_batch_end", BoxTrainer._count_batch)

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = False) -> nn.Module:
        """Build the network of a YAML file, with the weights of a checkpoint if there is one."""
        in_bfloat16 = self.device.type == "cpu" and trains_in_bfloat16(self.device)
        kind: Any = Bfloat16Model if in_bfloat16 else DetectionModel
        model: nn.Module = kind(cfg, nc=len(self._data.names), verbose=verbose)
        if weights is not None:
            model.load(weights)  # type: ignore[operator]
        return model

    def get_dataset(self) -> dict[str, Any]:
        """Return what ultralytics would read from the data.yaml."""
        names = dict(enumerate(self._data.names))
        images = {"train": self._data.train, "val": self._data.val}
        return {"train": "train", "val": "val", "names": names, "nc": len(names), "channels": 3, "images": images}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> BoxDataset:
        """Build one split; validation uses rectangles of like proportions, padded as ultralytics does."""
        return BoxDataset(
            img_path=img_path,
            data=self.data,
            imgsz=self.args.imgsz,
            batch_size=batch,
            augment=mode == "train",
            hyp=self.args,
            rect=mode == "val",
            stride=STRIDE,
            pad=0.0 if mode == "train" else 0.5,
        )

    def save_model(self) -> bool:
        """Write the checkpoints, each whole or not at all, and the best one before the one a rerun continues from.

        Then say how the epoch went.
        """
        if self.fitness == self.best_fitness:
            self._save_best()
        last, best = self.last, self.best
        self.last, self.best = last.with_suffix(".part"), best.with_suffix(".part")
        saved: bool = super().save_model()  # type: ignore[no-untyped-call]
        self.best.unlink(missing_ok=True)  # `BEST` has it in full precision
        self.last.replace(last)
        self.last, self.best = last, best
        losses = ", ".join(f"{name} {float(loss):.3f}" for name, loss in self.tloss.items())
        map50, seconds = self.metrics["metrics/mAP50(B)"], time.time() - self.epoch_time_start
        log.info("epoch %d/%d: %s, mAP50 %.3f (%.0f s)", self.epoch + 1, self.epochs, losses, map50, seconds)
        self._batches = 0
        self._next_line = time.monotonic() + _QUIET_SECONDS
        return saved

    def read_results_csv(self) -> dict[str, Any]:
        """Return nothing to be kept in the checkpoint: ultralytics would read a file that grows, by polars."""
        return {}

    def final_eval(self) -> None:
        """Do nothing: every epoch was validated, and stripping the checkpoint would lose a run killed right after."""

    def _save_best(self) -> None:
        state = {k: _portable(v) for k, v in unwrap_model(self.ema.ema).state_dict().items()}
        box = self.validator.metrics.box
        found = {self._data.names[c]: float(ap) for c, ap in zip(box.ap_class_index, box.ap50, strict=True)}
        scores = {"epoch": self.epoch + 1, "map50": float(box.map50), "map50_per_class": found}
        part = self.save_dir / (BEST + ".part")
        safetensors.torch.save_file(state, part, {"scores": json.dumps(scores)})
        part.replace(self.save_dir / BEST)

    def _count_batch(self) -> None:
        self._batches += 1
        if time.monotonic() > self._next_line:
            log.info("epoch %d/%d: batch %d of %d", self.epoch + 1, self.epochs, self._batches, len(self.train_loader))
            self._next_line = time.monotonic() + _QUIET_SECONDS


def _portable(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.float() if tensor.is_floating_point() else tensor


def read_best(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights of the best epoch, and its number and scores."""
    with safetensors.safe_open(folder / BEST, framework="pt") as file:
        scores: dict[str, Any] = json.loads(file.metadata()["scores"])
        return {name: file.get_tensor(name) for name in file.keys()}, scores  # noqa: SIM118 -- not a dict


def epochs_done(folder: Path) -> int:
    """Count the epochs that the run in this folder has behind it."""
    last = folder / "weights" / "last.pt"
    if not last.is_file():
        return 0
    checkpoint = torch.load(last, map_location="cpu", weights_only=False)  # our own
    return int(checkpoint["epoch"]) + 1
