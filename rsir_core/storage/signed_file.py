"""Read files whose URLs are signed, and sign again when a signature has expired in the meantime."""

from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import fsspec

from rsir_core.storage.signing import SignedUri, is_denied

T = TypeVar("T")


def with_renewal(uri: SignedUri, do: Callable[[str], T]) -> T:
    """Do something with the signed URL, and once more with a new signature if the store refuses this one."""
    try:
        return do(uri.sign())
    except Exception as error:  # each store has its own family of errors
        if not is_denied(error):
            raise
    return do(uri.sign(renew=True))


class SignedFile:
    """Read parts of a file; it is opened again, with a new signature, when the store refuses the old one.

    Args:
        uri: of the file.
        options: of fsspec's `open`.
    """

    def __init__(self, uri: SignedUri, **options: Any) -> None:
        self._uri, self._options = uri, options
        self._file: BinaryIO = with_renewal(uri, self._open)

    def _open(self, url: str) -> BinaryIO:
        fs, path = fsspec.core.url_to_fs(url)
        file: BinaryIO = fs.open(path, "rb", **self._options)
        return file

    def read(self, size: int = -1) -> bytes:
        """Read from the current position."""
        at = self._file.tell()
        try:
            return self._file.read(size)
        except Exception as error:  # each store has its own family of errors
            if not is_denied(error):
                raise
        self._file.close()
        self._file = self._open(self._uri.sign(renew=True))
        self._file.seek(at)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the current position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the current position."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "SignedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
