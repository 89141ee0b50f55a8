"""From the detector's candidates to the objects of an image: class-wise non-maximum suppression."""

from typing import Final

import torch
from torch import Tensor

OVERLAP: Final = 0.45  # intersection over union above which two boxes of a class are one object, as YOLOv5 has it
LOOKED_AT: Final = 1000  # candidates, so that a detector that is sure of everything costs no more
MOST: Final = 20  # objects


@torch.inference_mode()
def suppress(candidates: Tensor, min_score: float) -> list[tuple[float, int, list[float]]]:
    """Suppress overlapping candidates: confidence, class and box of one image's objects, best first.

    A candidate is of its most probable class alone. Among equal scores the first place of the (C × A) scores comes
    first, so the first object is the one at `scores.max()`.

    Args:
        candidates: (4 + C) × A; x centre, y centre, width, height, and a score per class.
        min_score: what an object has at least.
    """
    from torchvision.ops import batched_nms, box_convert  # noqa: PLC0415 -- makes a cache folder when it is imported

    boxes, (score, of_class) = candidates[:4].T.float(), candidates[4:].float().max(dim=0)  # A × 4, A, A
    place = of_class * len(score) + torch.arange(len(score), device=score.device)
    chosen = torch.nonzero(score >= min_score).flatten()
    chosen = chosen[place[chosen].argsort()]
    chosen = chosen[score[chosen].argsort(descending=True, stable=True)][:LOOKED_AT]
    boxes, score, of_class = boxes[chosen], score[chosen], of_class[chosen]
    kept = batched_nms(box_convert(boxes, "cxcywh", "xyxy"), score, of_class, OVERLAP).sort().values[:MOST]
    return list(zip(score[kept].tolist(), of_class[kept].tolist(), boxes[kept].tolist(), strict=True))
