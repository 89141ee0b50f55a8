"""Read files by URI, local or in any store that fsspec opens."""

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from rsir_core.errors import FailureKind, ImageError
from rsir_core.storage.filesystem import opened
from rsir_core.storage.signed_file import SignedFile, with_renewal
from rsir_core.storage.signing import SignedUri, is_denied, without_signatures

_MIN_REQUEST: Final = 512 * 1024  # bytes of a request to a store: a block or two of a scene


def read_file(uri: str, max_bytes: int) -> bytes:
    """Read a whole file.

    Raises:
        ImageError: stage `read`; kind `missing`, `denied`, `empty`, `too_large` (found before reading), `memory` or
            `error`.
    """
    with reading(uri):
        return _read_remote(uri, max_bytes) if "://" in uri else _read_local(uri, max_bytes)


def open_file(uri: str) -> BinaryIO:
    """Open a file to read parts of it; of remote files only what is read is fetched, in steps of half a MiB.

    Raises:
        ImageError: stage `read`; kind `missing`, `denied`, `empty` or `error`.
    """
    with reading(uri):
        if (signed := SignedUri.parse(uri)) is not None:
            return cast(BinaryIO, SignedFile(signed, block_size=_MIN_REQUEST, cache_type="readahead"))
        if "://" in uri:
            fs, path = opened(uri)
            file: BinaryIO = fs.open(path, "rb", block_size=_MIN_REQUEST, cache_type="readahead")
            return file
        _check_local(uri, sys.maxsize)
        return Path(uri).open("rb")


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Convert errors of reading a file in the body to ImageError of stage `read`."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # each store has its own family of errors; none may end a worker
        raise _image_error(uri, error) from (error if SignedUri.parse(uri) is None else None)


def _image_error(uri: str, error: Exception) -> ImageError:
    said = str(error) if SignedUri.parse(uri) is None else without_signatures(str(error))
    if is_denied(error):
        return ImageError(f"{uri} cannot be read, access is denied: {said}", "read", "denied")
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return ImageError(f"{uri} is gone: {said}", "read", "missing")
    if isinstance(error, MemoryError):
        return ImageError(f"{uri} does not fit into memory; lower the pixel limit", "read", "memory")
    return ImageError(f"{uri} cannot be read: {type(error).__name__}: {said}", "read", "error")


def _read_local(uri: str, max_bytes: int) -> bytes:
    _check_local(uri, max_bytes)
    return Path(uri).read_bytes()


def _check_local(uri: str, max_bytes: int) -> None:
    status = Path(uri).stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block until it has a writer
        raise ImageError(f"{uri} is no regular file", "read", "error")
    _check_size(uri, status.st_size, max_bytes)


def _read_remote(uri: str, max_bytes: int) -> bytes:
    signed = SignedUri.parse(uri)
    if signed is None:
        return _read_url(uri, uri, max_bytes)
    return with_renewal(signed, lambda url: _read_url(url, uri, max_bytes))


def _read_url(url: str, uri: str, max_bytes: int) -> bytes:
    """Read a whole file; `uri` is its name in messages."""
    fs, path = opened(url)
    size = fs.info(path).get("size")
    if size is not None:
        _check_size(uri, size, max_bytes)
    data: bytes = fs.cat_file(path) if size is not None else fs.cat_file(path, start=0, end=max_bytes + 1)
    _check_size(uri, len(data), max_bytes)
    return data


def _check_size(uri: str, size: int, max_bytes: int) -> None:
    kind: FailureKind
    if size == 0:
        kind, what = "empty", "is empty (0 bytes); write it again"
    elif size > max_bytes:
        kind, what = "too_large", f"has {size:,} bytes, the limit is {max_bytes:,}; raise the limit or leave it out"
    else:
        return
    raise ImageError(f"{uri} {what}", "read", kind)
