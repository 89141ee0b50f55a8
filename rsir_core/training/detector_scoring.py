"""A detector's mAP50 over boxes, by the protocol of ultralytics, in which the epochs were compared too.

Import it inside `offline_ultralytics()`.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ultralytics.data.build import build_dataloader
from ultralytics.models.yolo.detect import DetectionValidator

from rsir_core.boxes.data import BoxedImage
from rsir_core.models.bundle import State
from rsir_core.models.detector import build_detector
from rsir_core.models.letterbox import STRIDE
from rsir_core.models.settings import DetectorSettings
from rsir_core.training.detector import BoxDataset


@torch.inference_mode()
def score_boxes(
    settings: DetectorSettings, state: State, images: Sequence[BoxedImage], batch_size: int, device: str
) -> dict[str, Any]:
    """Score boxes: `map50` and `map50_per_class`, of the classes that have a box, over images with boxes.

    Args:
        settings: of the detector; its `min_score` has no part in it.
        state: its weights.
        images: at least one with a box.
        batch_size: images per forward pass, which are padded to one size.
        device: `cpu` or `cuda`.
    """
    model = build_detector(settings.model, len(settings.classes))
    model.load_state_dict(state)
    model.to(device).eval()
    names = dict(enumerate(settings.classes))
    model.names = names  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:  # it makes one, whatever is written
        validator: Any = DetectionValidator(
            save_dir=Path(folder), args={"imgsz": settings.image_size, "batch": batch_size, "plots": False}
        )
    data = {"names": names, "channels": 3, "images": {"test": images}}
    validator.data, validator.device, validator.training = data, torch.device(device), False
    dataset = BoxDataset(
        img_path="test", data=data, imgsz=settings.image_size, batch_size=batch_size, augment=False,
        hyp=validator.args, rect=True, stride=STRIDE, pad=0.5,
    )  # fmt: skip
    validator.dataloader = build_dataloader(dataset, batch_size, workers=0, shuffle=False)
    validator.init_metrics(model)
    for batch in validator.dataloader:
        prepared = validator.preprocess(batch)
        validator.update_metrics(validator.postprocess(model(prepared["img"])), prepared)
    validator.get_stats()
    box = validator.metrics.box
    found = {names[c]: float(ap) for c, ap in zip(box.ap_class_index, box.ap50, strict=True)}
    return {"map50": float(box.map50), "map50_per_class": found}
