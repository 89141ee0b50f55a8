"""Answer queries over an index by HTTP: ingress → describer → searcher, until interrupted."""

import logging
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig, HTTPOptions
from ray.serve.schema import LoggingConfig

from jobs.cluster import joined
from jobs.config import ServeConfig, Summary, run
from jobs.serve_app import Limits
from jobs.serve_query import Edition, open_edition
from jobs.serve_replicas import BATCH, DescriberReplica, Ingress, SearcherReplica
from rsir_core.errors import RsirError

APP: Final = "rsir"
REQUEST_TIMEOUT: Final = 120.0  # seconds, so that a client that stops sending does not hold its place for good
HEALTH_TIMEOUT: Final = 60.0  # seconds; the probe queues behind two batches, and a large detector is slow on a CPU
QUIET: Final = LoggingConfig(log_level="WARNING", enable_access_log=False)


def build(config: ServeConfig, edition: Edition) -> Application:
    """The three deployments, bound together.

    Describer and searcher reserve half a CPU each: a query keeps one of them busy at a time, and both fit on one core.
    """
    half: dict[str, Any] = {"num_cpus": 0.5}
    common: dict[str, Any] = {"health_check_timeout_s": HEALTH_TIMEOUT, "max_constructor_retry_count": 2}
    device = "cuda" if config.num_gpus else "cpu"
    limits = Limits(config.max_k, config.max_bytes, config.max_pixels)
    describer = serve.deployment(
        name="describer",
        ray_actor_options=half | ({"num_gpus": config.num_gpus} if config.num_gpus else {}),
        max_ongoing_requests=2 * BATCH,  # one batch under way, one waiting
        **common,
    )(DescriberReplica)
    searcher = serve.deployment(
        name="searcher", ray_actor_options=half, max_ongoing_requests=config.max_concurrency, **common
    )(SearcherReplica)
    ingress = serve.deployment(
        name="ingress",
        ray_actor_options={"num_cpus": 0},  # it waits
        max_ongoing_requests=config.max_concurrency,
        max_queued_requests=config.max_concurrency,  # by default there is no limit
        backpressure_config=BackpressureConfig(retry_after_s=1),
        **common,
    )(serve.ingress()(Ingress))
    bound = describer.bind(edition, config.max_pixels, device), [searcher.bind(edition, 0, 1)]
    return ingress.bind(edition, *bound, limits)


def serve_index(config: ServeConfig) -> Summary:
    """Serve the newest version of an index until SIGINT or SIGTERM.

    Raises:
        TableError, BundleError: there is nothing complete to serve.
        RsirError: the port is taken, Ray Serve is in use, or the deployments do not start.
    """
    started = time.monotonic()
    edition = open_edition(config.index)
    port = _free_port(config.host, config.port)
    url = f"http://{config.host}:{port}/"
    logging.getLogger("ray.serve").setLevel(QUIET.log_level)
    with joined(config.address):
        if serve.status().proxies:  # it would keep its own host and port
            raise RsirError(
                "Ray Serve runs on this cluster already; end that endpoint, or `serve shutdown` what is left"
            )
        http = HTTPOptions(host=config.host, port=port, request_timeout_s=REQUEST_TIMEOUT)
        serve.start(http_options=http, logging_config=QUIET)
        try:
            with _until_interrupted():
                _start(build(config, edition))
                print(f"{edition.images} images (version {edition.version}) are searchable at {url}", flush=True)
                _pause()
        finally:
            serve.shutdown()
    return {"url": url, "version": edition.version, "images": edition.images, "seconds": time.monotonic() - started}


def _start(application: Application) -> None:
    try:
        serve.run(application, name=APP, logging_config=QUIET)
    except RuntimeError as error:
        raise RsirError(f"the endpoint did not start: {error}") from error


def _free_port(host: str, port: int) -> int:
    """The port to listen on: any free one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise RsirError(f"cannot listen on {host}:{port} ({error}); pass another --host or --port") from error


def _pause() -> None:
    while True:
        signal.pause()


@contextmanager
def _until_interrupted() -> Iterator[None]:
    """SIGTERM, as from a supervisor, and SIGINT, also where a shell ignores it for background jobs, end the body."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(s, signal.default_int_handler) for s in signals]
    try:
        yield
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)


if __name__ == "__main__":
    sys.exit(run(serve_index, ServeConfig, "serve"))
