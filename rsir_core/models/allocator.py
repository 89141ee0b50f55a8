"""What the C library keeps of freed memory, and when it gives it back; others than glibc decide by themselves."""

import ctypes
from typing import Final

import pyarrow as pa

# Of mallopt(3).
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3

LARGE: Final = 32 << 20  # bytes, the most that glibc takes; larger ones, such as whole pictures, go back at once
KEPT: Final = 256 << 20  # bytes


def keep_activations() -> None:
    """Let this process keep what a forward pass frees, for the next one.

    Else each layer's output comes from the system page by page: with 8 images of 224 pixels through efficientnet_lite0
    that was 4 to 7 of 25 ms per image.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE)
        mallopt(_TRIM_THRESHOLD, KEPT)


def give_back() -> None:
    """Return what is kept, by Arrow too; takes milliseconds, for where much has been let go of."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
