"""What a job needs of a cluster at the least, and what is said where the cluster lacks it."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from rsir_core.errors import ConfigError

EVERY: Final = 30.0  # seconds between two words about what is waited for

log = logging.getLogger("jobs")


class Needs(NamedTuple):
    """Name the resources that must be there before a job can begin.

    Attributes:
        options: by which it was asked for, as they are typed.
        gpus: of all nodes together.
        cpus: of all nodes together.
    """

    options: str
    gpus: float = 0.0
    cpus: float = 0.0

    def lacking(self) -> str | None:
        """Say what the cluster lacks; None: nothing."""
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
def provided(needs: Needs, can_grow: bool, every: float = EVERY) -> Iterator[None]:
    """Make sure that a cluster has what is needed; of one that can grow, say what is waited for while the body runs.

    Args:
        needs: of the job.
        can_grow: whether nodes may still come.
        every: seconds between two words.

    Raises:
        ConfigError: it is lacking, and will not come.
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
    thread = threading.Thread(target=_say_what_is_awaited, args=(needs, enough, every), daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def _say_what_is_awaited(needs: Needs, enough: threading.Event, every: float) -> None:
    while (lacking := needs.lacking()) is not None:
        log.warning("waiting for the cluster to grow: %s needs %s", needs.options, lacking)
        if enough.wait(every):
            return
    log.info("the cluster has what %s needs", needs.options)
