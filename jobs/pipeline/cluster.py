"""Join a Ray cluster, or start a local one, for the duration of a job."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

import ray
from ray.exceptions import RayTaskError

from jobs.pipeline.resources import Needs, is_on_cluster, provided
from rsir_core.errors import ConfigError, RsirError
from rsir_core.storage.filesystem import one_line

# In a job's own Ray, idle workers stay until it ends. When Ray 2.60 ends an idle worker, one in many crashes, with a
# page of traces on the job's terminal: its metrics thread (`DeltaProducer::RunHarvesterLoop` of OpenCensus) locks a
# mutex that is already destructed. See https://github.com/ray-project/ray/issues/36885, which is similar.
_IDLE_WORKERS_STAY: Final = MappingProxyType({"kill_idle_workers_interval_ms": 0})
# Loggers of Ray Data that add a traceback to every error; and the text that it appends to an error's message.
_TRACEBACKS: Final = ("ray.data.exceptions", "ray.data._internal.execution.streaming_executor_state")
_RETRIES: Final = "\nFailed to apply UDF transform after"
# Warnings at each start about settings that are intended: token authentication, and no progress bars of Ray's own.
_AS_WANTED: Final = {
    "ray._private.authentication.authentication_token_setup": "Token authentication is enabled",
    "ray.data._internal.progress": "Progress bars disabled",
}


@contextmanager
def joined(address: str | None, needs: Needs | None = None, verbose: bool = False) -> Iterator[None]:
    """Connect to Ray to run Ray Data's pipelines; see `connected`, which says what is raised."""
    from ray.data import DataContext  # noqa: PLC0415 -- which takes a second, and an endpoint does without

    context = DataContext.get_current()
    context.enable_progress_bars = verbose  # the jobs print their own progress, in images
    context.execution_no_progress_timeout_s = -1  # spot GPUs may take more than 30 minutes
    context.raise_original_map_exception = True  # otherwise Ray Data keeps only its text
    with connected(address, needs, verbose):
        yield


@contextmanager
def connected(
    address: str | None, needs: Needs | None = None, verbose: bool = False, metrics_port: int = 0
) -> Iterator[None]:
    """Connect to Ray, and disconnect at the end, so that no worker prints a line after the job's summary.

    A process that is already connected stays connected: several jobs in one process, as in tests, share its cluster.

    Args:
        address: a cluster's address; None joins the cluster of a submitted job, else starts Ray on this machine.
        needs: resources without which the body would wait; see `provided`.
        verbose: let Ray print its information, progress bars and tracebacks too.
        metrics_port: where a local Ray exports its metrics; 0: any free port.

    Raises:
        ConfigError: no cluster answers at the address, or this machine lacks what is needed.
        RsirError: Ray does not start on this machine; or an error of a worker, without Ray's traceback.
    """
    level = logging.INFO if verbose else logging.WARNING
    if not verbose:
        _quieten()
    needs = needs or Needs("")
    if ray.is_initialized():
        with provided(needs, can_grow=True), _raising_what_workers_do():
            yield
        return
    # By default Ray would join any cluster that it finds on this machine, which may be another user's.
    on_cluster = is_on_cluster(address)
    try:
        if not on_cluster:
            with known_to_its_workers():
                ray.init(
                    address="local",
                    include_dashboard=False,  # it takes two seconds to start
                    logging_level=level,
                    _metrics_export_port=metrics_port,
                    # A copy: Ray adds the folder that this session spills objects to, which the next must not use.
                    _system_config=dict(_IDLE_WORKERS_STAY),
                )
        else:
            ray.init(address=address, logging_level=level)
    except (ConnectionError, ValueError) as error:
        where = f"--address {address}" if address else f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS', '')}"
        raise ConfigError(f"{where}: no Ray cluster answers there ({error}); start one or leave it out") from error
    except Exception as error:  # a bare Exception, if Ray's own processes do not start
        raise RsirError(
            f"Ray did not start ({one_line(error)}); see that this machine has memory and time for it, then try again"
        ) from error
    try:
        with provided(needs, can_grow=on_cluster), _raising_what_workers_do():
            yield
    finally:
        ray.shutdown()


def _quieten() -> None:
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for name in _TRACEBACKS:
        logging.getLogger(name).addFilter(_is_unforeseen)
    for name in _AS_WANTED:
        logging.getLogger(name).addFilter(_is_news)


@contextmanager
def known_to_its_workers() -> Iterator[None]:
    """Choose the address of the Ray that the body starts, and set it in the environment of its processes.

    Otherwise some of Ray's own helpers (in 2.60, Ray Train's PlacementGroupCleaner) look for "the" Ray on this machine,
    find two when two jobs run, and ask the wrong one, which refuses them every few seconds.
    """
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
    chosen = {"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}"}
    before = {name: os.environ.get(name) for name in chosen}
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _raising_what_workers_do() -> Iterator[None]:
    try:
        yield
    except RayTaskError as error:  # its message contains the worker's traceback
        if (cause := error.cause) is None or not isinstance(cause, RsirError):
            raise
        message, *more = cause.args
        cause.args = str(message).partition(_RETRIES)[0], *more
        raise cause from None


def _is_unforeseen(record: logging.LogRecord) -> bool:
    """Tell whether an error is not one of this project's, so that its traceback is worth logging."""
    error = record.exc_info[1] if record.exc_info else sys.exception()
    return not isinstance(getattr(error, "cause", None), RsirError)


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether a warning is about anything but the settings that the jobs chose."""
    return not record.getMessage().startswith(_AS_WANTED[record.name])
