"""Copy pixels to the device that works on them, without waiting for what it was given before."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rsir_core.arrays import Pixels


def to_device(images: Sequence[Pixels], device: torch.device) -> Tensor:
    """Stack images of one shape on a device, N×H×W×3 uint8.

    For a GPU they are stacked in page-locked memory. The GPU copies them from there while this process goes on; a copy
    from ordinary memory would wait for everything that is queued on the GPU.

    Args:
        images: at least one; they may be read-only.
        device: where to.
    """
    if device.type != "cuda":
        return torch.from_numpy(np.stack(images)).to(device)
    locked = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=True)
    np.stack(images, out=locked.numpy())
    return locked.to(device, non_blocking=True)  # PyTorch reuses the locked memory once the copy is done
