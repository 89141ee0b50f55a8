import os
from collections.abc import Iterator

import pytest
import ray
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: tests run beside Ray's actors on few cores

settings.register_profile("shared machine", deadline=None)  # examples are not a measure of speed
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One real Ray for all tests; the GPU is a number that Ray counts, so that GPU stages can be placed."""
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False)
    yield
    ray.shutdown()
