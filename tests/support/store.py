"""An S3 store on loopback in a process of its own: moto's server, with faults that a test asks for in between."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
ROOT = Path(__file__).parents[2]


class Fault(NamedTuple):
    """What happens to requests from now on.

    Attributes:
        method: of the requests.
        path: a regular expression that their path matches somewhere.
        status: they are answered with; `held`: they wait until `Store.release`, and are then cut off.
        code: the error's name in S3's XML.
        applied: whether they take effect nevertheless.
        skip: so many of them pass first.
        times: so many are hit; -1: all.
    """

    method: str
    path: str
    status: int | Literal["held"] = 500
    code: str = "InternalError"
    applied: bool = False
    skip: int = 0
    times: int = -1


class Faulty:
    """A WSGI application in front of another."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._fault: Fault | None = None
        self._lock, self._free, self._hits = threading.Condition(), threading.Event(), 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/_fault"):
            return self._told(environ, start)
        fault = self._hit_by(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if fault is None:
            return self._app(environ, start)
        if fault.applied:
            list(self._app(environ, lambda *_: None))
        with self._lock:  # not before: who is told of the hit may look for its effect
            self._hits += 1
            self._lock.notify_all()
        if fault.status == "held":
            self._free.wait()
        start(f"{500 if fault.status == 'held' else fault.status} {fault.code}", [("Content-Type", "application/xml")])
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        return [f"<Error><Code>{fault.code}</Code><Message>as the test asked</Message></Error>".encode()]

    def _hit_by(self, method: str, path: str) -> Fault | None:
        with self._lock:
            fault = self._fault
            if fault is None or method != fault.method or not re.search(fault.path, path):
                return None
            if fault.skip or not fault.times:
                self._fault = fault._replace(skip=max(fault.skip - 1, 0))
                return None
            self._fault = fault._replace(times=fault.times - 1)
            return fault

    def _told(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            match environ["REQUEST_METHOD"]:
                case "PUT":
                    given = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
                    self._fault, self._hits = Fault(**given), 0
                    self._free.clear()
                case "DELETE":
                    self._fault = None
                    self._free.set()
                case "GET":  # waits for a hit
                    self._lock.wait_for(lambda: self._hits, 1)
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(self._hits).encode()]


class Store(NamedTuple):
    """The store's address, and what a process needs to know of it."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables that s3fs (botocore), deltalake (object_store) and Arrow read."""
        secret = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        return {**secret, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.url,
                "AWS_ALLOW_HTTP": "true"}  # fmt: skip

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """While the body runs, or until `release`."""
        httpx.put(f"{self.url}/_fault", json=fault._asdict()).raise_for_status()
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """No fault any more; what is held is let go."""
        httpx.delete(f"{self.url}/_fault").raise_for_status()

    def hits(self) -> int:
        """How many requests the fault has hit; waits a second for the first."""
        return int(httpx.get(f"{self.url}/_fault", timeout=30).raise_for_status().json())


@contextmanager
def running(log: Path) -> Iterator[Store]:
    """A store with an empty bucket named `bucket`."""
    environment: Mapping[str, str] = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.store"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=out
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().decode().strip()
            assert url, log.read_text()
            httpx.put(f"{url}/bucket", timeout=60).raise_for_status()
            yield Store(url)
        finally:
            process.terminate()


def main() -> None:
    """Serve until terminated; the address is the first line of stdout."""
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415 -- in its own process only
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server  # noqa: PLC0415 -- as above

    app = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
