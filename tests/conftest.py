import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: tests run beside Ray's actors on few cores

import httpx
import pytest
import ray
from hypothesis import settings

from rsir_core.table import Index
from tests.serving import Rows, build_index, local_app, serving

settings.register_profile("shared machine", deadline=None)  # examples are not a measure of speed
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One real Ray for all tests; the GPU is a number that Ray counts, so that GPU stages can be placed."""
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small real index of two images of each class, made without Ray."""
    return build_index(tmp_path_factory.mktemp("serving"), per_class=2)


@pytest.fixture(scope="session")
def url(index: str) -> Iterator[str]:
    """The endpoint's app over it, served by this process."""
    with serving(local_app(index)) as url:
        yield url


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def stored(index: str) -> Rows:
    """Its rows, as published."""
    found: Rows = Index(index).features().to_pylist()
    return found
