"""Conv-BN fusion: fold batch normalisations into the convolutions before them, for fewer passes over memory.

`torch.fx` does this only for networks that it can trace.
"""

from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norms(model: Network) -> Network:
    """Fold each batch normalisation into the convolution defined right before it; the model is for inference only then.

    All of our backbones define them in the order in which they call them; a test checks that for every family.

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
            # those of `efficientnet` contain the activation; keep it
            setattr(module, norm_name, nn.Sequential(*norm.children()))
    return model
