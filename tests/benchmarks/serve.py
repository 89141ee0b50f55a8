"""The endpoint on Ray Serve, against one that does nothing and against its own model; and a version swap under load.

`*_ratio_noop`: queries by image id, k = 50, against a deployment graph of the same shape (proxy, ingress, one call of
another deployment) that answers `{}`; in turns, in one run. `describer_ratio`: images per second of 16 clients that
upload, against the same describer in a loop on an idle machine; `describer_ratio_beside`: against that loop while the
same uploads go to the endpoint that does nothing, since here clients and proxy share the describer's cores (see
`uploads`). Rows are drawn as in `search`.
"""

import argparse
import contextlib
import http.client
import json
import logging
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from fastapi import FastAPI, Request, Response
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle

from jobs.serving.deployment import build
from jobs.serving.options import ServeConfig
from jobs.serving.serve import QUIET, free_port
from rsir_core.index.delta import TableFile, WrittenFile
from rsir_core.index.index import Index
from rsir_core.index.writer import write_rows
from rsir_core.retrieval.partition import in_runs
from tests.benchmarks.index import write_models
from tests.support.drawn_rows import drawn_version
from tests.support.uploads import Client, describer_rates
from tests.support.writing import writer_of

FILES = 4
FIRST = 1  # version that has rows: 0 is the table before them
K = 50

# The index


def write_index(uri: str, n: int) -> list[WrittenFile]:
    """n rows in clustered files, the first version; with the models of `index`."""
    index, rng = Index(uri), np.random.default_rng(0)
    write_models(f"{uri}/models")
    writer_of(index).adopt_bundle(f"{uri}/models")
    table = drawn_version(index, n, rng)
    shares = [table.take(pa.array(np.arange(part, n, FILES))) for part in range(FILES)]
    files = [write_rows(index.uri, "features", *in_runs(share)) for share in shares]
    writer_of(index).commit("features", files, "overwrite")
    return files


# The endpoints


class Nothing:
    def call(self, asked: bytes) -> bytes:
        return b"{}"


def nothing_app(handle: DeploymentHandle[Any]) -> FastAPI:
    app = FastAPI()

    @app.post("/search")
    async def search(request: Request) -> Response:
        return Response(await handle.call.remote(await request.body()), media_type="application/json")

    return app


class NothingIngress:
    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    def __serve_build_asgi_app__(self) -> FastAPI:
        return nothing_app(self._handle)


@contextlib.contextmanager
def endpoints(index: str) -> Iterator[int]:
    """Both, on one port: ours at /, the one that does nothing at /nothing."""
    port = free_port("127.0.0.1", 0)
    alone = not ray.is_initialized()
    if alone:
        quiet: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
        ray.init(address="local", num_cpus=2, include_dashboard=False, **quiet)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port), logging_config=QUIET)
    like: dict[str, Any] = {"max_ongoing_requests": 64, "logging_config": QUIET}
    nothing = serve.deployment(name="nothing", ray_actor_options={"num_cpus": 0.5}, **like)(Nothing)
    ingress = serve.deployment(name="nothing-ingress", ray_actor_options={"num_cpus": 0}, **like)(
        serve.ingress()(NothingIngress)
    )
    try:
        serve.run(build(ServeConfig(index=index, refresh=1.0)), name="rsir", logging_config=QUIET)
        serve.run(ingress.bind(nothing.bind()), name="nothing", route_prefix="/nothing", logging_config=QUIET)
        yield port
    finally:
        serve.shutdown()
        if alone:
            ray.shutdown()


# Asking


def by_id(n: int, seed: int) -> Iterator[bytes]:
    rng = np.random.default_rng(seed)
    while True:
        yield json.dumps({"image_id": f"tiles/{rng.integers(n):09}.jpg", "k": K}).encode()


def medians(port: int, n: int, requests: int) -> dict[str, float]:
    """Milliseconds per path, one request at a time, in turns."""
    bodies = by_id(n, 0)
    times: dict[str, list[float]] = {"/search": [], "/nothing/search": []}
    with Client(port) as client:
        for i in range(requests + 50):
            for path, taken in times.items():
                body = next(bodies)
                began = time.perf_counter()
                status, _ = client.post(path, body)
                if i >= 50:
                    taken.append((time.perf_counter() - began) * 1000)
                assert status == 200
    return {path: statistics.median(taken) for path, taken in times.items()}


def until(done: Callable[[], bool], port: int, path: str, n: int) -> tuple[Counter[int], float]:
    """Statuses of what 8 clients get until it is done, and requests per second."""

    def ask(seed: int) -> Counter[int]:
        statuses, bodies = Counter[int](), by_id(n, seed)
        with Client(port) as client:
            while not done():
                try:
                    statuses[client.post(path, next(bodies))[0]] += 1
                except (OSError, http.client.HTTPException):
                    statuses[0] += 1
                    client.close()
        return statuses

    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        statuses = sum(pool.map(ask, range(8)), Counter[int]())
    return statuses, statuses.total() / (time.perf_counter() - began)


def rates(port: int, n: int, seconds: float) -> dict[str, float]:
    """Requests per second of each, in turns of a fifth of the time."""
    found: dict[str, list[float]] = {"/search": [], "/nothing/search": []}
    for _ in range(5):
        for path, rate in found.items():
            end = time.perf_counter() + seconds / 5
            rate.append(until(lambda end=end: time.perf_counter() > end, port, path, n)[1])  # type: ignore[misc]
    return {path: statistics.median(rate) for path, rate in found.items()}


def swap(port: int, index: Index, files: list[WrittenFile], requests: int, settle: float) -> dict[str, Any]:
    """Publish another version, of the same rows, while queries go on, until it is served and enough have been asked."""
    last = TableFile(files[-1].name, files[-1].row_count)
    again = [*files[:-1], write_rows(index.uri, "features", *index.read_features(last))]
    before, asked, ended = resident_mb(), [0], threading.Event()

    def publish() -> None:
        version = writer_of(index).commit("features", again, "overwrite")
        with Client(port) as client:
            while not ended.is_set():
                if json.loads(client.get("/index")[1])["version"] == version:
                    swapped.set()
                    return
                time.sleep(0.1)

    swapped = threading.Event()
    publishing = threading.Thread(target=publish)
    publishing.start()
    began = time.perf_counter()

    def done() -> bool:
        asked[0] += 1
        return swapped.is_set() and asked[0] > requests + 100

    statuses, _ = until(done, port, "/search", sum(file.row_count for file in files))
    seconds = time.perf_counter() - began
    ended.set()
    publishing.join()
    return {
        "swap_requests": statuses.total(),
        "swap_failed": statuses.total() - statuses[200],
        "swap_statuses": {str(status): count for status, count in statuses.items()},
        "swap_seconds": round(seconds, 1),
        "searcher_mb": {"before": before, "after": settled_mb(before, settle)},
    }


def resident_mb() -> int:
    """Of the searcher's memory that is its own: files that are mapped do not count."""
    return int(re.findall(r"RssAnon:\s+(\d+) kB", searcher_status())[0]) // 1024


def searcher_status() -> str:
    """What Linux tells of the searcher; of one, if others run on this machine too."""
    processes = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    for line in processes.splitlines():
        pid, _, name = line.strip().partition(" ")
        if name.startswith("ray::ServeReplica:rsir:searcher-0"):
            return Path(f"/proc/{pid}/status").read_text()
    raise AssertionError("no searcher runs")


def settled_mb(before: int, seconds: float) -> int:
    """Once the old version is let go of, or after so many seconds."""
    end = time.monotonic() + seconds
    while (now := resident_mb()) > before and time.monotonic() < end:
        time.sleep(0.5)
    return now


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.serve", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=500, help="of the latency's median, of each endpoint")
    parser.add_argument("--seconds", type=float, default=20, help="of sustained requests, of each endpoint")
    parser.add_argument("--images", type=int, default=480, help="to upload, and as many to describe bare, three times")
    parser.add_argument("--swap-requests", type=int, default=2000, help="at least, while the version is swapped")
    parser.add_argument("--settle-seconds", type=float, default=60, help="at most, for the old version to be let go")
    parser.add_argument("--index", help="folder to keep the made index in, or of one that was kept")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="rsir-serve-") as folder:
        uri = options.index or folder
        files = kept(uri, options.rows)
        with endpoints(uri) as port:
            p50, rps = medians(port, options.rows, options.requests), rates(port, options.rows, options.seconds)
            described = describer_rates(port, uri, options.images)
            swapped = swap(port, Index(uri), files, options.swap_requests, options.settle_seconds)
    result = {
        "rows": options.rows,
        "p50_ms": round(p50["/search"], 2),
        "p50_noop_ms": round(p50["/nothing/search"], 2),
        "p50_ratio_noop": round(p50["/search"] / p50["/nothing/search"], 3),
        "rps": round(rps["/search"], 1),
        "rps_noop": round(rps["/nothing/search"], 1),
        "rps_ratio_noop": round(rps["/search"] / rps["/nothing/search"], 3),
        "describer_images_per_second": {k: round(v, 1) for k, v in described.items()},
        "describer_ratio": round(described["served"] / described["bare"], 3),
        "describer_ratio_beside": round(described["served"] / described["bare_beside"], 3),
        **swapped,
    }
    print(json.dumps(result) if options.json else "\n".join(f"{k:>28}  {v}" for k, v in result.items()))


def kept(uri: str, n: int) -> list[WrittenFile]:
    """The files of the index's first version; made where they are not there."""
    if not Path(uri, "features").exists():
        return write_index(uri, n)
    index = Index(uri)
    files = [
        WrittenFile(f.name, Path(index.table_uri("features"), f.name).stat().st_size, f.row_count)
        for f in index.feature_files(FIRST)
    ]
    writer_of(index).commit("features", files, "overwrite")
    return files


if __name__ == "__main__":
    main()
