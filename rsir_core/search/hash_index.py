"""A hash index from texts (image ids, URIs) to rows, in 12 bytes per row."""

from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rsir_core.arrays import Ints

Hashes = npt.NDArray[np.uint64]

OFFSET, PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


class HashIndex:
    """Find rows by the hash of their text; the caller checks whether a row has the text itself.

    Args:
        hashes: of the rows' texts, see `hashes_of`.
    """

    def __init__(self, hashes: Hashes) -> None:
        order = np.argsort(hashes)
        self._rows = order.astype(np.int32 if len(order) < 2**31 else np.int64)
        self._hashes = hashes[order]

    def find(self, text: str, is_it: Callable[[int], bool]) -> int | None:
        """Find the row of a text; None if no row has it.

        Args:
            text: to look up.
            is_it: tells whether a row has the text; called only for rows with its hash.
        """
        (wanted,) = hashes_of(pa.array([text]))
        first, end = (np.searchsorted(self._hashes, wanted, side) for side in ("left", "right"))
        return next((int(row) for row in self._rows[first:end] if is_it(int(row))), None)


def hashes_of(texts: pa.Array | pa.ChunkedArray) -> Hashes:
    """Hash each text's UTF-8 by FNV-1a, (n,) uint64."""
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    return np.concatenate([np.empty(0, np.uint64), *(_chunk(chunk.cast(pa.large_string())) for chunk in chunks)])


def _chunk(texts: pa.Array) -> Hashes:
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    hashes: Hashes = _fnv(np.frombuffer(data or b"", np.uint8), ends)
    return hashes


@numba.njit(nogil=True, cache=True)
def _fnv(data: npt.NDArray[np.uint8], ends: Ints) -> Hashes:
    result = np.empty(len(ends) - 1, np.uint64)
    for i in range(len(result)):
        value = OFFSET
        for j in range(ends[i], ends[i + 1]):
            value = (value ^ np.uint64(data[j])) * PRIME
        result[i] = value
    return result
