"""What a classifier sees of its training images: views that are as valid from above as the image itself.

From above there is no up, so any turn and any mirror image is a view. Scale is not free: images of one archive share
their ground size, and dense and sparse quarters differ by little else; so views zoom only slightly.
"""

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

ZOOM: Final = 1.25  # largest; 1.6 lost mAP on UC Merced


def turned_views(x: Tensor, size: int, share: float, freely: bool) -> Tensor:
    """Turn a view of each image: mirrored or not, of `share` of its sides or up to `ZOOM` times less.

    Its centre is anywhere from where it stays inside, so that it is a key region of the image wherever the
    representative object may be. What a turn brings in from outside is reflected.

    Args:
        x: N×3×S×S.
        size: S of the views.
        share: of the sides that a view covers at most: tau.
        freely: by any angle, else by quarters of a turn.
    """
    n = len(x)
    turns = torch.rand(n)
    angle = (turns if freely else (turns * 4).floor() / 4) * 2 * math.pi
    scale = share * ZOOM ** -torch.rand(n)
    mirror = torch.randint(0, 2, (n,)) * 2.0 - 1
    shift = (torch.rand(n, 2) * 2 - 1) * (1 - scale)[:, None]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
    theta = torch.stack(rows, 1).to(x.device)  # N×2×3
    grid = functional.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
