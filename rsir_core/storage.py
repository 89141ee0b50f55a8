"""Writing a file to any storage so that no reader ever sees half of it."""

import uuid
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem


def put_file(uri: str, data: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing."""
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
