"""The job: what it refuses to serve, and the endpoint in a process of its own on Ray Serve."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyarrow as pa
import pytest

from jobs.serving.serve import free_port
from rsir_core import schemas
from rsir_core.errors import TableError
from rsir_core.index.index import Index
from rsir_core.index.last_run import LastRun, put_last_run
from rsir_core.index.writer import write_rows
from rsir_core.retrieval.served_version import open_version
from tests.endpoint.test_fuzz import REFUSED, send
from tests.support.bodies import bodies
from tests.support.forks import run
from tests.support.serving import LIMITS, ONE, Rows, check_finds_itself, copy_of, publish, publish_by_other_pca, upload
from tests.support.writing import writer_of

# Starting


@pytest.mark.ray
@pytest.mark.usefixtures("forks")
def test_an_index_that_is_not_there_is_said_on_one_line(tmp_path: Path) -> None:
    done = run(["jobs.serve", "--index", str(tmp_path / "none")])
    assert done.returncode == 1
    assert re.fullmatch(r"serve: no index at \S+none .*jobs\.index\n", done.stderr)


def test_an_index_without_rows_is_not_served(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    writer_of(index).commit("features", [write_rows(index.uri, "features", schemas.FEATURES.empty_table())], "append")
    with pytest.raises(TableError, match="has no rows"):
        open_version(str(tmp_path))


def test_rows_of_two_models_are_not_served(tmp_path: Path, index: str) -> None:
    features = Index(index).features()
    other = features.set_column(3, features.schema.field(schemas.BUNDLE), pa.array(["another"] * len(features)))
    mixed = Index(str(tmp_path))
    writer_of(mixed).commit("features", [write_rows(mixed.uri, "features", t) for t in (features, other)], "append")
    with pytest.raises(TableError, match="another"):
        open_version(str(tmp_path))


# The real thing

FUZZED = 300


class Endpoint:
    """`python -m jobs.serve` in a process of its own."""

    def __init__(self, index: str, log: Path, *options: str) -> None:
        self.log = log
        self.session = tempfile.TemporaryDirectory(prefix="rsir-ray-")  # Ray's sockets want a short path
        self.metrics_port = free_port("127.0.0.1", 0)
        ports = ["--port", "0", "--metrics-port", str(self.metrics_port)]
        command = [sys.executable, "-m", "jobs.serve", "--index", index, *ports, "--json", *options]
        with log.open("w") as stderr:
            environment = {**os.environ, "RAY_TMPDIR": self.session.name}
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert "http" in said, log.read_text()
        self.url = said.split()[-1]

    @property
    def folder(self) -> Path:
        """Ray's, of this endpoint alone."""
        return Path(self.session.name) / "ray"

    def stop(self, by: signal.Signals) -> dict[str, Any]:
        self.process.send_signal(by)
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.log.read_text()
        summary: dict[str, Any] = json.loads(out.splitlines()[-1])
        return summary

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self.session.cleanup()


@pytest.fixture(scope="module")
def changing(index: str, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """A copy that may change."""
    return copy_of(index, tmp_path_factory.mktemp("changing") / "index")


@pytest.fixture(scope="module")
def endpoint(changing: Index, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    log = tmp_path_factory.mktemp("endpoint") / "stderr"
    options = [
        "--max-bytes",
        str(LIMITS.max_bytes),
        "--max-pixels",
        str(LIMITS.max_pixels),
        "--max-concurrency",
        "2",
        "--partitions",
        "2",
        "--refresh",
        "0.2",
    ]
    with closing(Endpoint(changing.uri, log, *options)) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def served(endpoint: Endpoint) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=endpoint.url, timeout=120) as client:
        yield client


@pytest.mark.ray
@pytest.mark.timeout(600)  # indexes, starts Ray and three replicas
def test_ray_serve_answers_as_the_app_does(served: httpx.Client, client: httpx.Client, stored: Rows) -> None:
    assert served.get("/healthz").json()["status"] == "ok"
    check_finds_itself(served, stored[3])
    asked = {"image_id": ONE, "k": 5, "classes": ["beach", "river"]}
    assert served.post("/search", json=asked).json() == client.post("/search", json=asked).json()
    for path in ("/images?contains=b", f"/thumbnail/{ONE}", "/", "/app.js"):
        assert served.get(path).content == client.get(path).content


@pytest.mark.ray
def test_ray_serve_refuses_as_the_app_does(served: httpx.Client, endpoint: Endpoint) -> None:
    assert served.post("/search", json={"image_id": "none"}).status_code == 404
    assert served.post("/search", json={"image_id": ONE, "classes": ["moon"]}).status_code == 422
    assert upload(served, b"junk").status_code == 422
    assert upload(served, bytes(LIMITS.max_bytes)).status_code == 413
    assert "Traceback" not in endpoint.log.read_text()  # a bad request is no fault of ours


@pytest.mark.ray
def test_ray_serve_says_when_it_is_busy(served: httpx.Client, endpoint: Endpoint, stored: Rows) -> None:
    data = Path(stored[0]["uri"]).read_bytes()
    with ThreadPoolExecutor(24) as pool:
        responses = list(pool.map(lambda _: upload(served, data), range(48)))
    by_status = {response.status_code: response for response in responses}
    assert set(by_status) == {200, 503}
    assert int(by_status[503].headers["retry-after"]) > 0
    assert upload(served, data).status_code == 200
    refused = re.compile(r'ray_serve_num_http_error_requests\S*\{[^}]*error_code="503"')
    while not refused.search(metrics(endpoint)):  # whom Serve's own queue turns away never gets to the ingress
        assert endpoint.process.poll() is None


@pytest.mark.ray
def test_a_new_version_is_swapped_in_under_queries(served: httpx.Client, changing: Index) -> None:
    rows_of = {changing.version(): len(changing.features())}
    rows_of[first := changing.version() + 1] = len(changing.features()) - 5
    assert publish(changing, changing.features().slice(5), files=2) == first
    asked = {"uri": changing.features()[schemas.URI][0].as_py(), "k": 100}
    while (answer := served.post("/search", json=asked)).json()["version"] != first:
        assert len(answer.json()["results"]) == rows_of[answer.json()["version"]]
    assert len(answer.json()["results"]) == rows_of[first]
    older = served.post("/search", json=asked | {"version": first - 1}).json()
    assert (older["version"], len(older["results"])) == (first - 1, rows_of[first - 1])
    assert served.post("/search", json=asked | {"version": 99}).status_code == 404


@pytest.mark.ray
def test_another_pca_is_swapped_in_under_uploads(served: httpx.Client, changing: Index) -> None:
    """Described by one version's PCA and ranked by another's rows, an upload would not find itself at 0, or fail."""
    before, data = changing.version(), Path(changing.features()[schemas.URI][-1].as_py()).read_bytes()
    newest = publish_by_other_pca(changing, dimensions=5)
    seen = {before: 8}
    while newest not in seen:
        answer = upload(served, data, k=1).json()
        assert answer["results"][0]["distance"] == 0
        seen[answer["version"]] = len(answer["query"]["feature"])
    assert seen == {before: 8, newest: 5}


@pytest.mark.ray
def test_requests_are_counted_and_logged(served: httpx.Client, endpoint: Endpoint) -> None:
    """In Ray's own places: the log once the answer has left, the exporter some seconds later."""
    served.post("/search", json={"image_id": ONE, "k": 7})
    (log,) = (endpoint.folder / "session_latest" / "logs" / "serve").glob("replica_rsir_ingress_*.log")
    while not (found := [request for request in logged(log) if request["k"] == 7]):
        assert endpoint.process.poll() is None
    (last,) = found
    assert (last["method"], last["route"], last["status"]) == ("POST", "/search", 200)
    assert 0 < last["ms"]["rank"] < last["ms"]["total"]
    assert "beach" not in json.dumps(logged(log))
    wanted = {"rsir_requests", "rsir_stage_ms", "rsir_uploads", "rsir_rows", "rsir_version"}
    while missing := [name for name in wanted if f"ray_{name}" not in metrics(endpoint)]:
        assert endpoint.process.poll() is None, missing


@pytest.mark.ray
def test_what_the_last_index_run_came_to_is_exported(served: httpx.Client, endpoint: Endpoint, changing: Index) -> None:
    put_last_run(changing, LastRun(1234.0, "done", None, {"corrupt": 3}, 1.5, 0.25, True))
    gauges = ("time", "good_run_time", "run_failed", "run_drift", "run_class_shift", "run_suggests_refit")
    while missing := [name for name in gauges if not re.search(rf"ray_rsir_last_\w*{name}\{{", metrics(endpoint))]:
        served.get("/healthz")  # the ingress exports what it knows with each request
        assert endpoint.process.poll() is None, missing
    assert re.search(r"ray_rsir_last_good_run_time\{[^}]*\} 1234(\.0)?$", metrics(endpoint), re.MULTILINE)


def logged(log: Path) -> list[dict[str, Any]]:
    whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line)["request"] for line in whole if '"request": {' in line]


def metrics(endpoint: Endpoint) -> str:
    """Read what Ray exports, some seconds late."""
    return httpx.get(f"http://127.0.0.1:{endpoint.metrics_port}/metrics", timeout=60).text


@pytest.mark.ray
def test_whatever_is_sent_ray_serve_answers_in_words(served: httpx.Client, endpoint: Endpoint) -> None:
    """As the app alone does, see `test_fuzz`: what a replica raises comes back through Serve."""
    address = urlsplit(endpoint.url)
    for body in bodies(FUZZED, seed=2):
        with closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)) as connection:
            assert send(connection, body) in {200, 503, *REFUSED}, body.data[:200]
    assert served.get("/healthz").status_code == 200


@pytest.mark.ray
@pytest.mark.usefixtures("forks")
def test_a_second_endpoint_is_refused_the_port(endpoint: Endpoint, index: str) -> None:
    port = endpoint.url.rstrip("/").rpartition(":")[2]
    done = run(["jobs.serve", "--index", index, "--port", port])
    assert (done.returncode, f"cannot listen on 127.0.0.1:{port}" in done.stderr) == (1, True)


@pytest.mark.ray
def test_ray_serve_ends_in_order_when_it_is_told_to(endpoint: Endpoint, stored: Rows) -> None:
    summary = endpoint.stop(signal.SIGTERM)
    assert (summary["images"], summary["version"], summary["url"]) == (len(stored), 1, endpoint.url)
    assert "Traceback" not in endpoint.log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(endpoint.url)
