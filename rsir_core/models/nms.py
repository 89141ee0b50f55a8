"""Class-wise non-maximum suppression (NMS) of the detector's candidates."""

from typing import Final

import torch
from torch import Tensor

MAX_IOU: Final = 0.45  # intersection over union above which two boxes of a class are one object, YOLOv5's value
MAX_CANDIDATES: Final = 1000  # bounds the cost when a detector is confident everywhere
MAX_OBJECTS: Final = 20


@torch.inference_mode()
def suppress(candidates: Tensor, min_score: float) -> list[tuple[float, int, list[float]]]:
    """Suppress overlapping candidates; returns confidence, class and box of one image's objects, best first.

    A candidate counts for its most probable class only. Ties go to the first place in the (C × A) scores, so the first
    object is the one at `scores.max()`.

    Args:
        candidates: (4 + C) × A; x centre, y centre, width, height, and a score per class.
        min_score: least confidence of an object.
    """
    from torchvision.ops import batched_nms, box_convert  # noqa: PLC0415 -- makes a cache folder when it is imported

    boxes, (score, of_class) = candidates[:4].T.float(), candidates[4:].float().max(dim=0)  # A × 4, A, A
    place = of_class * len(score) + torch.arange(len(score), device=score.device)
    chosen = torch.nonzero(score >= min_score).flatten()
    chosen = chosen[place[chosen].argsort()]
    chosen = chosen[score[chosen].argsort(descending=True, stable=True)][:MAX_CANDIDATES]
    boxes, score, of_class = boxes[chosen], score[chosen], of_class[chosen]
    kept = batched_nms(box_convert(boxes, "cxcywh", "xyxy"), score, of_class, MAX_IOU).sort().values[:MAX_OBJECTS]
    return list(zip(score[kept].tolist(), of_class[kept].tolist(), boxes[kept].tolist(), strict=True))
