"""Training augmentation of the classifier: rotated, mirrored and slightly zoomed crops.

Seen from above there is no up, so every rotation and mirror image is valid. Scale is not free: images of one archive
often share their ground resolution, and dense and sparse residential areas differ by little else, so crops zoom no
further than the training says.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def turned_views(x: Tensor, size: int, share: float, zoom: float, freely: bool) -> Tensor:
    """Crop, rotate and perhaps mirror each image at random.

    A crop's sides are `share` of the image's, or up to `zoom` times smaller. Its centre is uniform over all places
    where the unrotated crop stays inside, because a key region may lie anywhere. Pixels from outside of the image,
    which rotation brings in, are reflected.

    Args:
        x: N×3×H×W, H = W.
        size: side of the result, which is N×3×size×size.
        share: largest share of the sides that a crop covers: tau.
        zoom: ratio of the largest crop's sides to the smallest one's, at least 1.
        freely: whether to rotate by any angle, else by quarter turns.
    """
    n = len(x)
    turns = torch.rand(n)
    angle = (turns if freely else (turns * 4).floor() / 4) * 2 * math.pi
    scale = share * zoom ** -torch.rand(n)
    mirror = torch.randint(0, 2, (n,)) * 2.0 - 1
    shift = (torch.rand(n, 2) * 2 - 1) * (1 - scale)[:, None]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
    theta = torch.stack(rows, 1).to(x.device)  # N×2×3
    grid = functional.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
