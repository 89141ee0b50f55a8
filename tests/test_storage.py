"""What a store says is one line that names the place and the remedy, whatever family its error is of."""

from collections.abc import Callable

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from jobs.config import QueryConfig
from jobs.query import answer_queries
from rsir_core import bundle, detector
from rsir_core.errors import StorageError, WeightsError
from rsir_core.nomatch import get_no_match, has_no_match
from rsir_core.storage import create_file, put_file
from rsir_core.table import Index

URI = "memory://store/x"


class NoCredentialsError(Exception):
    """As botocore's: no OSError."""


@pytest.fixture
def _refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    for method in ("_open", "cat_file", "pipe_file", "exists", "ls"):
        monkeypatch.setattr(MemoryFileSystem, method, refuse)


@pytest.mark.usefixtures("_refusing")
@pytest.mark.parametrize(
    "action",
    [
        lambda: put_file(URI, b"1"),
        lambda: create_file(URI, b"1"),
        lambda: bundle.load_bundle(URI),
        lambda: bundle.read_detector(URI),
        lambda: bundle._load_weights(URI, {"file": "w.safetensors"}),
        lambda: has_no_match(Index(URI), 3),
        lambda: get_no_match(Index(URI), 3, "b", "p"),
        lambda: detector.load_start_weights(detector.build_detector("yolov5n", 1), URI),
        lambda: answer_queries(QueryConfig(queries="q", index="i", out=URI)),
    ],
)
def test_a_store_without_credentials(action: Callable[[], object]) -> None:
    words = r"memory:/+store/x.*NoCredentialsError.*credentials"
    with pytest.raises((StorageError, WeightsError), match=words) as error:
        action()
    assert len(str(error.value).splitlines()) == 1
