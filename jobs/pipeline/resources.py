"""The resources that a job needs at least, and what is reported while a cluster lacks them."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from rsir_core.errors import ConfigError

REPORT_INTERVAL: Final = 30.0  # seconds between two messages about what is awaited

log = logging.getLogger("jobs")


def is_on_cluster(address: str | None) -> bool:
    """Tell whether a job runs on a cluster: one whose address it was given, or the one that it was submitted to."""
    return address is not None or "RAY_ADDRESS" in os.environ  # Ray sets it for submitted jobs


class Needs(NamedTuple):
    """Name the resources that must exist before a job can begin.

    Attributes:
        options: the options that ask for them, as they are typed.
        gpus: total over all nodes.
        cpus: total over all nodes.
    """

    options: str
    gpus: float = 0.0
    cpus: float = 0.0

    def lacking(self) -> str | None:
        """Format what the cluster lacks; None if it lacks nothing."""
        import ray  # noqa: PLC0415 -- options are read without it

        there = ray.cluster_resources()
        wanted = {"GPU": self.gpus, "CPU": self.cpus}
        lacking = {kind: count for kind, count in wanted.items() if count > there.get(kind, 0)}
        if not lacking:
            return None
        return " and ".join(
            f"{count:g} {kind}s of which there are {there.get(kind, 0):g}" for kind, count in lacking.items()
        )


@contextmanager
def provided(needs: Needs, can_grow: bool, every: float = REPORT_INTERVAL) -> Iterator[None]:
    """Check that a cluster has what is needed; if it lacks something but can grow, report that while the body runs.

    Args:
        needs: the job's needs.
        can_grow: whether nodes can be added.
        every: seconds between two messages.

    Raises:
        ConfigError: something is lacking, and the cluster cannot grow.
    """
    lacking = needs.lacking()
    if lacking is None:
        yield
        return
    if not can_grow:
        raise ConfigError(
            f"{needs.options} needs {lacking} on this machine; ask for less, or run it on a cluster (--address)"
        )
    enough = threading.Event()
    thread = threading.Thread(target=_report_lack, args=(needs, enough, every), daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def _report_lack(needs: Needs, enough: threading.Event, every: float) -> None:
    while (lacking := needs.lacking()) is not None:
        log.warning("waiting for the cluster to grow: %s needs %s", needs.options, lacking)
        if enough.wait(every):
            return
    log.info("the cluster has what %s needs", needs.options)
