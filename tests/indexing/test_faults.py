"""The index job on a cluster of several nodes with archive and index on S3, while all of them fail.

Each test ends with the tables holding what an undisturbed run writes: no row lost, none doubled.
"""

import gc
import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from ray.cluster_utils import Cluster

from rsir_core import schemas
from rsir_core.errors import TableError
from rsir_core.imagery.decode import read_picture
from rsir_core.index.index import Index
from rsir_core.models.bundle import load_bundle
from rsir_core.models.describe import Describer
from rsir_core.models.pca import Moments
from rsir_core.retrieval.partition import Partition
from rsir_core.retrieval.served_version import open_version
from tests.indexing.test_index import draw
from tests.support import ray_worker
from tests.support.forks import Fork, start
from tests.support.models import write_bundle
from tests.support.store import Fault, Store, running

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    # Ray's, as it looks for free ports
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]
NODE: dict[str, Any] = {"object_store_memory": 10**8, "setup_worker_path": ray_worker.__file__}
IMAGES, COMMIT_EVERY, K = 16, 4, 3
EMBEDDINGS, FEATURES = (rf"{table}/_delta_log/0*[1-9]\d*\.json" for table in ("embeddings", "features"))


class Place(NamedTuple):
    """A cluster whose head does no work, with two nodes of one core, and the store that its processes know."""

    store: Store
    cluster: Cluster
    environment: dict[str, str]

    @contextmanager
    def job(self, index: str, log: Path, **options: Any) -> Iterator[Fork]:
        """The index job, running as a process of its own."""
        given = {"address": self.cluster.address, "archive": "s3://bucket/archive", "models": "s3://bucket/models",
                 "index": index, "components": K, "batch-size": 1, "commit-every": COMMIT_EVERY, **options}  # fmt: skip
        flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]
        with log.open("wb") as out, log.with_suffix(".out").open("wb") as summary:
            job = start(["jobs.index", *flags, "--json"], summary, out, self.environment)
            try:
                yield job
            finally:
                job.kill()
                job.wait()

    def run(self, index: str, log: Path, **options: Any) -> dict[str, Any]:
        """The summary of a run that ends well."""
        with self.job(index, log, **options) as job:
            assert job.wait() == 0, log.read_text()
        return last_line(log)

    def hit(self, job: Fork, log: Path) -> None:
        """Wait until the store's fault has hit a request."""
        while not self.store.hits():
            assert job.poll() is None, log.read_text()

    def workers(self) -> list[psutil.Process]:
        """The describing actors, on whichever node."""
        return [p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::MapWorker")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, forks: None) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("faults")
    draw(folder / "archive", 0, IMAGES)
    write_bundle(folder / "models")
    with running(folder / "store.log") as store, pytest.MonkeyPatch.context() as patch:
        environment = {**os.environ, **store.environment}
        for name, value in store.environment.items():
            patch.setenv(name, value)
        fs = fsspec.filesystem("s3")
        fs.clear_instance_cache()
        for name in ("archive", "models"):
            fsspec.filesystem("s3").put(str(folder / name), f"bucket/{name}", recursive=True)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, **NODE)
            gc.collect()
            yield Place(store, cluster, environment)
        finally:
            cluster.shutdown()
            fs.clear_instance_cache()


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> dict[str, Any]:
    """The embedding of each image, described one by one in this process."""
    fs, describer = fsspec.filesystem("s3"), Describer(load_bundle("s3://bucket/models"))
    uris = [f"s3://{path}" for path in fs.find("bucket/archive")]
    return {u.removeprefix("s3://bucket/archive/"): describer.describe([read_picture(u).pixels]) for u in uris}


def last_line(log: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(log.with_suffix(".out").read_text().splitlines()[-1])
    return summary


def check_whole(uri: str, undisturbed: dict[str, Any]) -> None:
    """The tables are what an undisturbed run writes."""
    index, ids = Index(uri), sorted(undisturbed)
    features = index.features()
    assert features["image_id"].to_pylist() == ids
    assert sorted(index.keys("embeddings")["image_id"].to_pylist()) == ids
    assert len(index.keys("failures")) == 0
    stored = index.embeddings(features)
    wanted = np.concatenate([undisturbed[i].embedding for i in ids]).astype(np.float32)
    np.testing.assert_allclose(stored, wanted, rtol=0.01, atol=0.005)
    assert features["region"].to_pylist() == [undisturbed[i].regions[0]._asdict() for i in ids]
    expected = Moments.of(stored).fit(K).transform(stored)
    np.testing.assert_allclose(schemas.to_matrix(features["feature"]), expected, atol=1e-5)


def written_rows(uri: str) -> int:
    """Rows of all files of embeddings, whether they were committed or not."""
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    files = fs.glob(f"{uri.removeprefix('s3://')}/embeddings/part-*")
    return sum(pq.ParquetFile(file, filesystem=fs).metadata.num_rows for file in files)


def answer(uri: str) -> tuple[int, list[Any]]:
    """The version that an endpoint would serve now, and what it says to a query."""
    edition = open_version(uri)
    resident = Partition(Index(uri), edition.version)
    likely = np.full(len(edition.classes), 1 / len(edition.classes), np.float32)
    hits = resident.search(np.ones(edition.dimensions, np.float32), likely, IMAGES, None, euclidean=False)
    return edition.version, [hits.rows.tolist(), hits.weighted_distance.tolist()]


def test_a_driver_that_is_killed_as_it_commits_is_continued(
    place: Place, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    uri, log = "s3://bucket/killed", tmp_path / "log"

    def killed(fault: Fault, **options: Any) -> None:
        with place.store.fault(fault), place.job(uri, log, **options) as job:
            place.hit(job, log)
            while fault.skip and written_rows(uri) < IMAGES:  # a commit hangs, and actors go on
                assert job.poll() is None, log.read_text()
            if options:
                assert answer(uri) == before
            job.send_signal(signal.SIGKILL)
            job.wait()

    killed(Fault("PUT", EMBEDDINGS, "held", skip=1))
    assert len(Index(uri).keys("embeddings")) == COMMIT_EVERY
    with pytest.raises(TableError):  # readers see nothing, or all
        Index(uri).version()
    killed(Fault("PUT", EMBEDDINGS, "held", applied=True))  # committed without knowing it
    assert len(Index(uri).keys("embeddings")) == IMAGES
    with pytest.raises(TableError):
        Index(uri).version()
    killed(Fault("PUT", FEATURES, "held", applied=True))
    before = answer(uri)
    killed(Fault("PUT", FEATURES, "held"), components=K - 1)  # a version that nobody gets to see
    assert answer(uri) == before
    assert place.run(uri, log)["described"] == 0
    check_whole(uri, undisturbed)
    assert written_rows(uri) == IMAGES  # what was written is never described again, whether it was committed or not


def test_actors_and_nodes_that_die_are_replaced(place: Place, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    uri, log = "s3://bucket/died", tmp_path / "log"
    with place.store.fault(Fault("PUT", "embeddings/part-", "held", skip=5, times=1)), place.job(uri, log) as job:
        place.hit(job, log)  # an actor waits for the store
        victim = place.workers()[0]
        victim.kill()
        leaving = next(node for node in place.cluster.list_all_nodes() if node is not place.cluster.head_node)
        place.cluster.remove_node(leaving, allow_graceful=False)
        place.cluster.add_node(num_cpus=1, **NODE)
        gc.collect()
        place.store.release()
        assert job.wait() == 0, log.read_text()
    check_whole(uri, undisturbed)


def test_expired_credentials_and_full_memory_stop_the_run_and_record_nothing(
    place: Place, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    uri, log = "s3://bucket/stopped", tmp_path / "log"
    with place.store.fault(Fault("HEAD", "archive/", 403, "ExpiredToken", skip=6)), place.job(uri, log) as job:
        assert job.wait() == 1
    assert "denied" in log.read_text().splitlines()[-1], log.read_text()
    described = len(Index(uri).keys("embeddings"))
    assert 0 < described < IMAGES and len(Index(uri).keys("failures")) == 0

    with place.store.fault(Fault("PUT", "embeddings/part-", "held", times=1)), place.job(uri, log) as job:
        place.hit(job, log)
        for worker in place.workers():
            worker.rlimit(resource.RLIMIT_AS, (worker.memory_info().vms, -1))
        place.store.release()
        job.wait()  # it fails, unless what it needs is there already
    with pytest.raises(TableError) if job.returncode else pytest.MonkeyPatch.context():
        Index(uri).version()

    place.run(uri, log)
    check_whole(uri, undisturbed)
