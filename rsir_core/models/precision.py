"""Choose the precision: of describing, and of training.

Training takes bfloat16 if the device has native instructions for it, else float32. On a CPU with AVX512-BF16 it is
about twice as fast: 26 against 15 images/s for efficientnet_lite0 at 224 pixels, 16 against 7 for yolov5n at 512 (2
cores). Emulated bfloat16 is slower than float32.
"""

import torch


def describing_type(device: torch.device) -> torch.dtype:
    """Return the type of weights and activations when images are described: float16 on GPUs, else float32.

    Weights are converted once. Autocast would convert those of each layer in each forward pass, as it keeps converted
    weights only while they are trained: three kernels per convolution instead of one.
    """
    return torch.float16 if device.type == "cuda" else torch.float32


def trains_in_bfloat16(device: torch.device) -> bool:
    """Tell whether the device has native bfloat16 instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
