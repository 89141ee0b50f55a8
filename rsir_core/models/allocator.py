"""Tune how much freed memory glibc keeps, and return it on request; other C libraries decide by themselves."""

import ctypes
from typing import Final

import pyarrow as pa

# Of mallopt(3).
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3

MMAP_THRESHOLD: Final = 32 << 20  # bytes, glibc's maximum; larger blocks, such as whole pictures, are returned at once
TRIM_THRESHOLD: Final = 256 << 20  # bytes of free memory that the process may keep


def keep_activations() -> None:
    """Let this process keep the memory that a forward pass frees, for the next one.

    Otherwise each layer's output is mapped anew, page by page: for 8 images of 224 pixels through efficientnet_lite0
    that took 4 to 7 of 25 ms per image.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, TRIM_THRESHOLD)


def give_back() -> None:
    """Return free memory to the system, Arrow's too; takes milliseconds, so call it after freeing much."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
