"""Batch normalisations folded into the convolutions before them: fewer passes over memory, the same numbers.

`torch.fx` can do this for networks that it can trace, which those of timm are not.
"""

from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norms(model: Network) -> Network:
    """Fold each batch normalisation that is defined right after its convolution, for inference from then on.

    That is the order in which torchvision and timm both define and call them; a test holds it for every family.

    Args:
        model: changed in place.

    Returns:
        `model`, in evaluation mode and without gradients.
    """
    model.eval().requires_grad_(False)
    for module in list(model.modules()):
        for (name, convolution), (norm_name, norm) in pairwise(list(module.named_children())):
            if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                continue
            setattr(module, name, fuse_conv_bn_eval(convolution, norm))
            # timm's normalisations have the activation inside
            setattr(module, norm_name, nn.Sequential(*norm.children()))
    return model
