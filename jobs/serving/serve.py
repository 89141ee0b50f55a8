"""Answer queries over an index by HTTP, until interrupted."""

import logging
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from jobs.command import Summary
from jobs.pipeline.cluster import connected
from jobs.serving.deployment import build
from jobs.serving.options import ServeConfig
from rsir_core.endpoint.tokens import Tokens
from rsir_core.errors import ConfigError, RsirError
from rsir_core.retrieval.served_version import open_version

log = logging.getLogger("jobs.serve")

APP: Final = "rsir"
REQUEST_TIMEOUT: Final = 120.0  # seconds, so that a client that stops sending does not hold its place for good
STOP_TIMEOUT: Final = 30.0  # seconds for the controller to end all replicas
QUIET: Final = LoggingConfig(log_level="WARNING", enable_access_log=False)


def serve_index(config: ServeConfig) -> Summary:
    """Serve the newest version of an index until SIGINT or SIGTERM.

    Raises:
        ConfigError: --metrics-port with --address.
        TableError, BundleError: there is nothing complete to serve.
        RsirError: the port is taken, Ray Serve is in use, or the deployments do not start.
    """
    started = time.monotonic()
    if config.address is not None and config.metrics_port:
        raise ConfigError("--metrics-port: the cluster of --address has its own; leave one of them out")
    if config.tokens is not None:
        Tokens.read(config.tokens)  # before anything is started that takes its time
    served = open_version(config.index)
    port = free_port(config.host, config.port)
    url = f"http://{f'[{config.host}]' if ':' in config.host else config.host}:{port}/"
    logging.getLogger("ray.serve").setLevel(QUIET.log_level)
    with connected(config.address, config.needs, config.verbose, config.metrics_port):
        if serve.status().proxies:  # it would keep its own host and port
            raise RsirError(
                "Ray Serve runs on this cluster already; end that endpoint, or `serve shutdown` what is left"
            )
        http = HTTPOptions(host=config.host, port=port, request_timeout_s=REQUEST_TIMEOUT)
        serve.start(http_options=http, logging_config=QUIET)
        try:
            with _until_interrupted():
                _start(build(config))
                print(f"{served.images} images (version {served.version}) are searchable at {url}", flush=True)
                _pause()
        finally:
            _end_serve()
    return {"url": url, "version": served.version, "images": served.images, "seconds": time.monotonic() - started}


def _end_serve() -> None:
    """End Ray Serve as `serve.shutdown` does, without the line about infinite retries that it prints each time.

    Serve (2.60) waits in a call to its controller, which the controller's end interrupts; Ray takes that for a failure
    and says so. A call that does not wait, and then a look whether the controller is gone, says nothing.
    """
    client = serve.context._get_global_client()
    if client is None:
        return  # it did not start
    client.shutdown_cached_handles()
    with suppress(RayActorError):  # it is gone already
        ray.get(client._controller.graceful_shutdown.remote(wait=False))
    ends = time.monotonic() + STOP_TIMEOUT
    while is_there := _controller_is_there():
        if time.monotonic() > ends:
            break
        time.sleep(0.05)
    if is_there:
        log.warning("Serve's controller has not ended within %g s; it ends with Ray", STOP_TIMEOUT)
    client._shutdown = True  # it has been: what follows only forgets the client
    serve.shutdown()


def _controller_is_there() -> bool:
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def _start(application: Application) -> None:
    try:
        serve.run(application, name=APP, logging_config=QUIET)
    except RuntimeError as error:
        raise RsirError(f"the endpoint did not start: {error}") from error


def free_port(host: str, port: int) -> int:
    """Return the port to listen on: any free one for 0."""
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
    """End the body on SIGTERM, as from a supervisor, and SIGINT, also where a shell ignores it for background jobs."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(s, signal.default_int_handler) for s in signals]
    try:
        yield
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)
