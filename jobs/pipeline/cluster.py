"""Joining a Ray cluster, or starting a local one, for as long as a job runs."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset
from ray.exceptions import RayTaskError

from jobs.pipeline.resources import Needs, provided
from rsir_core.errors import ConfigError, RsirError
from rsir_core.storage.filesystem import one_line

# Of a Ray of the job's own: workers that idle stay until it ends. Of Ray 2.60 one in many crashes as it ends by itself,
# with a page of traces on the job's terminal: the thread that gathers its metrics (`DeltaProducer::RunHarvesterLoop` of
# OpenCensus) locks what is destructed already, of the kind of https://github.com/ray-project/ray/issues/36885.
_IDLE_WORKERS_STAY: Final = {"kill_idle_workers_interval_ms": 0}
# Where Ray Data logs an error with its traceback, as it may be a bug of Ray; and what it adds to an error's message.
_TRACEBACKS: Final = ("ray.data.exceptions", "ray.data._internal.execution.streaming_executor_state")
_RETRIES: Final = "\nFailed to apply UDF transform after"
# What Ray warns of at each start although it is as we want it: tokens for the Ray of its own, no bars of its own.
_AS_WANTED: Final = {
    "ray._private.authentication.authentication_token_setup": "Token authentication is enabled",
    "ray.data._internal.progress": "Progress bars disabled",
}


@contextmanager
def joined(address: str | None, needs: Needs | None = None) -> Iterator[None]:
    """Connect to Ray and leave it at the end, so that no line of a worker follows the job's summary.

    A process that is connected already stays so: several jobs in one process, as in tests, share its cluster.

    Args:
        address: a cluster's; None joins the one that a submitted job belongs to, else starts one on this machine.
        needs: without which the body would wait: said at once of this machine, and time and again of a cluster.

    Raises:
        ConfigError: no cluster answers at the address, or this machine has not what is needed.
        RsirError: none starts on this machine; or, as a worker has raised it, without Ray's traceback.
    """
    DataContext.get_current().enable_progress_bars = False  # the jobs say in images what is done and what remains
    DataContext.get_current().execution_no_progress_timeout_s = -1  # spot GPUs may be awaited for more than 30 minutes
    DataContext.get_current().raise_original_map_exception = True  # Ray Data keeps nothing of it but text otherwise
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for name in _TRACEBACKS:
        logging.getLogger(name).addFilter(_is_unforeseen)
    for name in _AS_WANTED:
        logging.getLogger(name).addFilter(_is_news)
    needs = needs or Needs("")
    if ray.is_initialized():
        with provided(needs, can_grow=True), _raising_what_workers_do():
            yield
        return
    # Left to itself Ray would join whatever cluster it finds on this machine, which may be another user's.
    submitted = "RAY_ADDRESS" in os.environ  # as Ray tells a submitted job which cluster is its own
    try:
        if address is None and not submitted:
            with _known_to_its_workers():
                ray.init(address="local", logging_level=logging.WARNING, _system_config=_IDLE_WORKERS_STAY)
        else:
            ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, ValueError) as error:
        where = f"--address {address}" if address else f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS', '')}"
        raise ConfigError(f"{where}: no Ray cluster answers there ({error}); start one or leave it out") from error
    except Exception as error:  # a plain one, where its own processes do not come up
        raise RsirError(
            f"Ray did not start ({one_line(error)}); see that this machine has memory and time for it, then try again"
        ) from error
    try:
        with provided(needs, can_grow=address is not None or submitted), _raising_what_workers_do():
            yield
    finally:
        ray.shutdown()


@contextmanager
def _known_to_its_workers() -> Iterator[None]:
    """Choose the address of the Ray that the body starts, and put it into the environment of its processes.

    Some of Ray's own helpers (of 2.60 Ray Train's PlacementGroupCleaner) look for "the" Ray on this machine otherwise,
    find two where two jobs run, and ask the wrong one, which refuses them every few seconds.
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
    except RayTaskError as error:  # its message has the worker's traceback
        if (cause := error.cause) is None or not isinstance(cause, RsirError):
            raise
        message, *more = cause.args
        cause.args = str(message).partition(_RETRIES)[0], *more
        raise cause from None


def _is_unforeseen(record: logging.LogRecord) -> bool:
    """Tell whether an error is none of this project's, for which Ray Data would log a traceback."""
    error = record.exc_info[1] if record.exc_info else sys.exception()
    return not isinstance(getattr(error, "cause", None), RsirError)


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether a warning says anything besides that Ray is set up as the jobs want it."""
    return not record.getMessage().startswith(_AS_WANTED[record.name])


def tables_of(dataset: Dataset, at_least: int = 1) -> Iterator[pa.Table]:
    """Yield the tables of a dataset as they come, fetched by the calling thread; its execution ends with this iterator.

    Ray's own iterators fetch ahead in threads of theirs, which live on where a loop is left by an error. Once `joined`
    has left the cluster, the first of them to touch Ray ends this process, before the job has said what was wrong
    (Ray 2.60: "The core worker has already been shutdown ... The process will exit").

    Args:
        dataset: of Arrow tables.
        at_least: rows of each table but the last.
    """
    gathered: list[pa.Table] = []
    for bundle in dataset.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            table: pa.Table = ray.get(entry.ref)
            if len(table):
                gathered.append(table)
            if sum(map(len, gathered)) >= at_least:
                yield pa.concat_tables(gathered)
                gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def rows_of(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset as they come; see `tables_of`."""
    for table in tables_of(dataset):
        yield from table.to_pylist()
