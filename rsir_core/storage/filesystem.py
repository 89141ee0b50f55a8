"""Open any storage by its URI, and write files so that no reader ever sees half of one."""

import errno
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from rsir_core.errors import ConfigError, RsirError, StorageError
from rsir_core.storage.signing import SignedUri

_CONTAINERS: Final = ("zip", "tar", "libarchive")  # protocols of files that contain files; the outer may be local
_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}


def file_system(uri: str, **options: Any) -> tuple[Any, str]:
    """Return the file system of a URI that a user gave, and the path on it; `options` are fsspec's.

    Raises:
        StorageError: the protocol is unknown, or its package is not installed.
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
    """Return file system and path of a URI like `fsspec.core.url_to_fs`, but allow `::` within names, and sign."""
    if (signed := SignedUri.parse(uri)) is not None:
        uri = signed.sign()
    if "::" in uri and len(links_of(uri)) == 1:
        protocol, mark, _ = uri.partition("://")
        fs = fsspec.filesystem(protocol if mark else "file", **options)
        return fs, str(fs._strip_protocol(uri))
    found: tuple[Any, str] = fsspec.core.url_to_fs(uri, **options)
    return found


def links_of(uri: str) -> list[str]:
    """Split a chained URI such as `zip://a.jpg::s3://bucket/photos.zip` into its links; other URIs are one link."""
    first, *others = uri.split("::")
    is_chain = all("://" in link for link in others) or first.partition("://")[0] in _CONTAINERS
    return [first, *others] if others and is_chain else [uri]


def make_folder(option: str, uri: str) -> None:
    """Create a local folder and check that it is writable, before work is done that could not be saved.

    Folders in object stores are not checked, because that could create a bucket.

    Args:
        option: the command-line option that names the folder, for the message.
        uri: of the folder.

    Raises:
        ConfigError: it cannot be created or written to.
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
    """Write a file atomically: readers see all of it or nothing.

    Raises:
        StorageError: the store refuses or fails.
    """
    try:
        _put(uri, data)
    except RsirError:
        raise
    except Exception as error:  # each store has its own family of errors
        raise not_written(uri, error) from error


@contextmanager
def writing(uri: str) -> Iterator[IO[bytes]]:
    """Give a file to write to, which appears under its URI when the body has ended well.

    Raises:
        StorageError: the store refuses or fails.
    """
    fs, path = file_system(uri)
    try:
        if not isinstance(fs, LocalFileSystem):
            with tempfile.NamedTemporaryFile() as file:
                yield file
                file.flush()
                fs.put_file(file.name, path)
            return
        unfinished = Path(f"{path}.{uuid.uuid4().hex}")
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as local:
                yield local
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except RsirError:
        raise
    except Exception as error:  # each store has its own family of errors
        raise not_written(uri, error) from error


@contextmanager
def reading_from(uri: str) -> Iterator[None]:
    """Convert a store's failures while the body reads to StorageError, whose text can be a job's last line.

    Raises:
        StorageError: the store does not answer, or refuses. A missing file stays a FileNotFoundError.
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
    """Format an error's message on one line, without the colour codes that deltalake's messages have."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())


def not_written(uri: str, error: Exception) -> StorageError:
    """Build the StorageError for a failed write; its text can be a job's last line."""
    return StorageError(
        f"{uri} cannot be written ({type(error).__name__}: {one_line(error)}); check space, network and "
        "credentials, then run the same command again"
    )


def _opened_to_write(uri: str) -> tuple[Any, str]:
    """Return the file system and path of a file to write, whose folder is there."""
    fs, path = opened(uri)
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    if _EXTRAS.keys().isdisjoint(protocols):  # object stores have no folders, and s3fs would make a mistyped bucket
        fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    return fs, path


def _put(uri: str, data: bytes) -> None:
    fs, path = _opened_to_write(uri)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)  # object stores publish an object when it is complete
        return
    unfinished = f"{path}.{uuid.uuid4().hex}"
    try:
        fs.pipe_file(unfinished, data)
        Path(unfinished).replace(path)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def create_file(uri: str, data: bytes) -> bool:
    """Create a file atomically unless it exists; returns whether this call created it.

    Of several concurrent calls one succeeds, on stores with conditional writes (local disks, S3, GCS, Azure). If the
    store's answer is lost, False may be returned although this call did create the file; read the file to be sure.

    Raises:
        StorageError: the store refuses or fails.
    """
    try:
        return _create(uri, data)
    except RsirError:
        raise
    except Exception as error:  # each store has its own family of errors
        raise not_written(uri, error) from error


def _create(uri: str, data: bytes) -> bool:
    fs, path = _opened_to_write(uri)
    if isinstance(fs, LocalFileSystem):
        return _link(data, path)
    try:
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        if fs.exists(path):  # the store reports an existing file by another error
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
