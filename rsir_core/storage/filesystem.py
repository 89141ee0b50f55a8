"""Any storage: by a URI, and writing a file so that no reader ever sees half of it."""

import errno
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from rsir_core.errors import ConfigError, RsirError, StorageError

_HOLDERS: Final = ("zip", "tar", "libarchive")  # protocols of files that hold others, which may be local paths
_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}


def file_system(uri: str, **options: Any) -> tuple[Any, str]:
    """Open what holds a URI that a person gave, and its path there; `options` are fsspec's.

    Raises:
        StorageError: the protocol is unknown, or not installed.
    """
    try:
        found = opened(uri, **options)
    except ImportError as error:
        protocol = uri.partition("://")[0]
        extra = _EXTRAS.get(protocol)
        remedy = f"pip install 'rsir[{extra}]'" if extra else str(error)
        raise StorageError(f"{uri}: reading {protocol}:// needs a package that is missing: {remedy}") from error
    except Exception as error:
        raise StorageError(f"{uri} is no URI that fsspec opens: {error}") from error
    return found


def opened(uri: str, **options: Any) -> tuple[Any, str]:
    """Find what holds a URI, and its path there, as `fsspec.core.url_to_fs`; but `::` in a name chains nothing."""
    if "::" in uri and len(links_of(uri)) == 1:
        protocol, mark, _ = uri.partition("://")
        fs = fsspec.filesystem(protocol if mark else "file", **options)
        return fs, str(fs._strip_protocol(uri))
    found: tuple[Any, str] = fsspec.core.url_to_fs(uri, **options)
    return found


def links_of(uri: str) -> list[str]:
    """Split a chain of stores, as `zip://a.jpg::s3://bucket/photos.zip` is one of two; any other URI is one of one."""
    first, *others = uri.split("::")
    is_chain = all("://" in link for link in others) or first.partition("://")[0] in _HOLDERS
    return [first, *others] if others and is_chain else [uri]


def make_folder(option: str, uri: str) -> None:
    """Make sure that a folder of this machine can be written to, before there is work that would be lost otherwise.

    Folders in object stores are not checked: that could mean making a bucket.

    Args:
        option: which gave it, in words of the command line.
        uri: of the folder.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        fs, path = file_system(uri)
        if isinstance(fs, LocalFileSystem):
            fs.makedirs(path, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
    except (OSError, StorageError) as error:
        raise ConfigError(f"{option} {uri}: the folder cannot be made or written to: {one_line(error)}") from error


def put_file(uri: str, data: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing.

    Raises:
        StorageError: the store does not take it.
    """
    try:
        _put(uri, data)
    except RsirError:
        raise
    except Exception as error:  # each store has its own family of errors
        raise not_written(uri, error) from error


@contextmanager
def reading_from(uri: str) -> Iterator[None]:
    """Turn a store's failure, while the body reads there, into an error whose text can be a job's last line.

    Raises:
        StorageError: it does not answer, or refuses. What is not there stays a FileNotFoundError.
    """
    try:
        yield
    except (RsirError, FileNotFoundError):
        raise
    except Exception as error:  # each store has its own family of errors
        raise StorageError(
            f"{uri} cannot be read ({type(error).__name__}: {one_line(error)}); check address, network and credentials"
        ) from error


def get_file(uri: str) -> bytes:
    """Read a small file.

    Raises:
        FileNotFoundError: there is none.
        StorageError: the store does not answer, or refuses.
    """
    fs, path = file_system(uri, use_listings_cache=False)
    with reading_from(uri):
        data: bytes = fs.cat_file(path)
    return data


def names_in(folder: str) -> list[str]:
    """List the names of what lies in a folder, as the store knows it now; none where there is no such folder.

    Raises:
        StorageError: the store does not answer, or refuses.
    """
    fs, path = file_system(folder, use_listings_cache=False)
    with reading_from(folder):
        try:
            return sorted(entry.rpartition("/")[2] for entry in fs.ls(path, detail=False))
        except FileNotFoundError:
            return []


def one_line(error: Exception) -> str:
    """Format what an error says, without line breaks and colours, which deltalake's have."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())


def not_written(uri: str, error: Exception) -> StorageError:
    """Turn a store's failure to write into an error whose text can be a job's last line."""
    return StorageError(
        f"{uri} cannot be written ({type(error).__name__}: {one_line(error)}); check space, network and "
        "credentials, then run the same command again"
    )


def _put(uri: str, data: bytes) -> None:
    fs, path = fsspec.core.url_to_fs(uri)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)  # object stores show an object when it is complete
        return
    unfinished = f"{path}.{uuid.uuid4().hex}"
    try:
        fs.pipe_file(unfinished, data)
        Path(unfinished).replace(path)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def create_file(uri: str, data: bytes) -> bool:
    """Write a file, whole, unless there is one already; returns whether this call has written it.

    Of several at once one writes it, where the store knows conditional writes (local disks, S3, GCS, Azure). An answer
    that got lost can make False of True: who must know reads the file.

    Raises:
        StorageError: the store does not take it.
    """
    try:
        return _create(uri, data)
    except RsirError:
        raise
    except Exception as error:  # each store has its own family of errors
        raise not_written(uri, error) from error


def _create(uri: str, data: bytes) -> bool:
    fs, path = fsspec.core.url_to_fs(uri)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    if isinstance(fs, LocalFileSystem):
        return _link(data, path)
    try:
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        if fs.exists(path):  # refused in other words
            return False
        if error.errno != errno.ENOSYS:
            raise
        fs.pipe_file(path, data)  # a store without conditional writes
    return True


def _link(data: bytes, path: str) -> bool:
    unfinished = Path(f"{path}.{uuid.uuid4().hex}")
    try:
        unfinished.write_bytes(data)
        os.link(unfinished, path)
    except FileExistsError:
        return False
    finally:
        unfinished.unlink(missing_ok=True)
    return True
