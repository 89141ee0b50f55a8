import gc
import os
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: tests run beside Ray's actors on few cores


import httpx
import pytest
from hypothesis import settings

from tests.support.network import block_network

# What takes seconds to load is loaded by the fixtures that need it: pytest's processes that only hand out tests do not.

block_network()
settings.register_profile("shared machine", deadline=None)  # examples are not a measure of speed
settings.register_profile("fast", settings.get_profile("shared machine"), max_examples=10)  # for `make test-fast`
settings.load_profile("shared machine")


def pytest_collection_finish() -> None:
    """What the imports have made stays, and is not looked through again whenever memory is."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """This machine's own Chromium, whose console can be read."""
    from tests.support.browser import browser

    with browser() as driver:
        yield driver


@pytest.fixture(scope="session")
def forks() -> Iterator[None]:
    """The process that workers of Ray and commands are forked from."""
    from tests.support.forks import parent

    with parent():
        yield


@pytest.fixture(scope="session")
def cluster(forks: None) -> Iterator[None]:
    """One real Ray for all tests, whose workers are forked; its GPU is a number, so that GPU stages can be placed."""
    import ray
    from ray._private.parameter import RayParams

    from jobs.pipeline.cluster import known_to_its_workers
    from tests.support import ray_worker

    forked = patch("ray._private.parameter.RayParams", partial(RayParams, setup_worker_path=ray_worker.__file__))
    with forked, known_to_its_workers():
        ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small real index of two images of each class, made without Ray."""
    from tests.support.serving import build_index

    return build_index(tmp_path_factory.mktemp("serving"), per_class=2)


@pytest.fixture(scope="session")
def url(index: str) -> Iterator[str]:
    """The endpoint's app over it, served by this process."""
    from tests.support.serving import local_app, serving

    with serving(local_app(index)) as url:
        yield url


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def stored(index: str) -> list[dict[str, Any]]:
    """Its rows, as published."""
    from rsir_core.index.index import Index

    found: list[dict[str, Any]] = Index(index).features().to_pylist()
    return found
