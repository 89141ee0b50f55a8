"""What a store says is one line that names the place and the remedy, whatever family its error is of."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec import get_filesystem_class

from jobs.query import answer_queries
from jobs.querying.options import QueryConfig
from rsir_core.archive.labels import read_split
from rsir_core.errors import LabelError, StorageError, WeightsError
from rsir_core.index.index import Index
from rsir_core.index.no_match import get_no_match_threshold, has_no_match_threshold
from rsir_core.models import bundle, detector
from rsir_core.storage.filesystem import create_file, get_file, put_file

URI = "s3://bucket/x"


@pytest.fixture
def _without_credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """S3's own client, which finds none and so asks nobody."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    get_filesystem_class("s3").clear_instance_cache()
    yield
    get_filesystem_class("s3").clear_instance_cache()


def test_a_name_with_two_colons_is_written_where_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "photos").write_bytes(b"mine")
    uri = f"{tmp_path}/photos::v2/bundle.json"
    put_file(uri, b"1")
    assert get_file(uri) == b"1" and not create_file(uri, b"2")
    assert (tmp_path / "photos").read_bytes() == b"mine"


@pytest.mark.usefixtures("_without_credentials")
def test_labels_on_a_store_without_credentials() -> None:
    with pytest.raises(LabelError, match=r"^s3://bucket/x: .*credentials"):
        read_split(URI)


@pytest.mark.usefixtures("_without_credentials")
@pytest.mark.parametrize(
    "action",
    [
        lambda: put_file(URI, b"1"),
        lambda: create_file(URI, b"1"),
        lambda: bundle.load_bundle(URI),
        lambda: bundle.read_detector(URI),
        lambda: bundle._load_weights(URI, {"file": "w.safetensors"}),
        lambda: has_no_match_threshold(Index(URI), 3),
        lambda: get_no_match_threshold(Index(URI), 3, "b", "p"),
        lambda: detector.load_start_weights(detector.build_detector("yolov5n", 1), URI),
        lambda: answer_queries(QueryConfig(queries="q", index="i", out=URI)),
    ],
)
def test_a_store_without_credentials(action: Callable[[], object]) -> None:
    words = r"(s3://)?bucket/x.*NoCredentialsError.*credentials"
    with pytest.raises((StorageError, WeightsError), match=words) as error:
        action()
    assert len(str(error.value).splitlines()) == 1
