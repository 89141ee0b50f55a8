"""EfficientNet-Lite as TensorFlow defines it (Tan and Le 2019; github.com/tensorflow/tpu, efficientnet/lite).

timm's `tf_efficientnet_lite0` to `2` are the same networks, and a test compares them bit by bit. But importing timm,
which also brings torchvision and torch's compiler, takes two seconds in every process that describes. Names of modules,
and the order in which they are made and initialised, are timm's, so that weights and seeds mean the same.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

DIMENSIONS: Final = 1280  # of the embedding
EPSILON: Final = 1e-3  # of batch normalisations, as TensorFlow has it
# Blocks of one stage of Lite0: how many, kernel size, stride of the first, expansion, output channels.
STAGES: Final = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
# What the others multiply channels and blocks of Lite0 with, by name.
SCALES: Final = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}
SIDES: Final = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}  # of images, pixels


class PaddedConvolution(nn.Conv2d):
    """Convolve with a stride of 2, padded as TensorFlow does: by as little as needed, more at the right and bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute N×C×⌈H/2⌉×⌈W/2⌉ of N×c×H×W."""
        bottom, right = (
            max((math.ceil(side / 2) - 1) * 2 + size - side, 0)
            for side, size in zip(x.shape[2:], self.kernel_size, strict=True)
        )
        x = functional.pad(x, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2))
        return super().forward(x)


class Normalised(nn.BatchNorm2d):
    """Normalise a batch, then clip to 0..6 unless the layer is linear."""

    def __init__(self, channels: int, linear: bool = False) -> None:
        super().__init__(channels, eps=EPSILON)
        self.act = nn.Identity() if linear else nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Compute a tensor of the same shape."""
        activated: Tensor = self.act(super().forward(x))
        return activated


def _convolution(channels: int, out: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(channels, out, size, padding=size // 2, groups=groups, bias=False)
    return PaddedConvolution(channels, out, size, stride, groups=groups, bias=False)


def _scaled(channels: int, width: float) -> int:
    """Scale a number of channels to a multiple of 8, which loses at most a tenth."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled


class Separable(nn.Module):
    """Convolve each channel by itself, then mix them: the first block."""

    def __init__(self, channels: int, out: int, size: int) -> None:
        super().__init__()
        self.conv_dw = _convolution(channels, channels, size, groups=channels)
        self.bn1 = Normalised(channels)
        self.conv_pw = _convolution(channels, out)
        self.bn2 = Normalised(out, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        """Compute N×`out`×H×W."""
        mixed: Tensor = self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))
        return mixed


class InvertedResidual(nn.Module):
    """Expand the channels, convolve each by itself, mix them to fewer, and add the input where the shape allows it."""

    def __init__(self, channels: int, out: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * channels
        self.conv_pw = _convolution(channels, wide)
        self.bn1 = Normalised(wide)
        self.conv_dw = _convolution(wide, wide, size, stride, groups=wide)
        self.bn2 = Normalised(wide)
        self.conv_pwl = _convolution(wide, out)
        self.bn3 = Normalised(out, linear=True)
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """Compute N×`out`×⌈H/stride⌉×⌈W/stride⌉."""
        mixed: Tensor = self.bn3(self.conv_pwl(self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))))
        return mixed + x if self.adds else mixed


class EfficientNetLite(nn.Module):
    """Compute the pooled embedding, N×1280, of images N×3×S×S.

    Args:
        name: one of `SCALES`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        width, depth = SCALES[name]
        self.conv_stem = _convolution(3, 32, 3, 2)
        self.bn1 = Normalised(32)
        for _ in range(2):
            nn.Conv2d(8, 8, 1)  # timm makes and drops these here, and so draws from the generator
        self.blocks, channels = nn.Sequential(), 32
        for i_stage, (count, size, stride, expansion, base) in enumerate(STAGES):
            stage, out = nn.Sequential(), _scaled(base, width)
            ends = i_stage in {0, len(STAGES) - 1}  # of one block each in all networks
            for i in range(count if ends else math.ceil(count * depth)):
                block = (channels, out, size)
                stage.append(
                    Separable(*block) if expansion == 1 else InvertedResidual(*block, 1 if i else stride, expansion)
                )
                channels = out
            self.blocks.append(stage)
        self.conv_head = _convolution(channels, DIMENSIONS)
        self.bn2 = Normalised(DIMENSIONS)
        self.apply_initial_values()

    @torch.no_grad()
    def apply_initial_values(self) -> None:
        """Draw the convolutions' weights as TensorFlow's implementation does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """Compute embeddings."""
        x = self.bn2(self.conv_head(self.blocks(self.bn1(self.conv_stem(x)))))
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)
