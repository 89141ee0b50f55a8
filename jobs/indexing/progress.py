"""Progress of a run, on the terminal and as Ray metrics: images, rate, remaining time, failures, workers' time."""

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from ray.util.metrics import Gauge

from rsir_core.errors import is_refusal

STAGES: Final = ("reading", "describing", "writing")
LINE_INTERVAL: Final = 5.0  # seconds between lines
WINDOW: Final = 300.0  # seconds over which the rate is taken for the remaining time

log = logging.getLogger("jobs.index")


class Progress:
    """Track the progress of describing images, from the files that workers report.

    Args:
        total: images to describe.
        workers: number of workers that describe them concurrently.
        clock: monotonic clock in seconds.

    Attributes:
        described: number of images whose embedding is written.
        failures: number of images that failed, by kind.
        failed_files: `uri`, `stage`, `kind` and `message` of each failed image.
        refused: number of images that the store refused.
        busy: seconds that workers spent in each stage, including separate reading tasks beside GPUs.
    """

    def __init__(self, total: int, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.workers, self.described = total, workers, 0
        self.failures: Counter[str] = Counter()
        self.failed_files: list[dict[str, str]] = []
        self.refused = 0
        self.busy = dict.fromkeys(STAGES, 0.0)
        self._clock = clock
        self._first, self._last = math.inf, -math.inf  # Unix seconds, by the workers' clocks
        self._marks: deque[tuple[float, int]] = deque()  # (time, images done), beginning with the first image opened
        self._printed = -math.inf
        self._meters = RunMetrics()

    @property
    def failed(self) -> int:
        """Number of images that failed."""
        return self.failures.total()

    @property
    def examples(self) -> dict[str, str]:
        """The first message of each kind of failure."""
        return {file["kind"]: file["message"] for file in reversed(self.failed_files)}

    @property
    def done(self) -> int:
        """Number of images described or failed."""
        return self.described + self.failed

    @property
    def rate(self) -> float:
        """Images per second from opening the first image to writing the last file; starting actors does not count."""
        return self.done / (self._last - self._first) if self._last > self._first else 0.0

    @property
    def seconds_left(self) -> float:
        """Estimated remaining seconds at the rate of the last minutes; infinite before the first image."""
        if not self._marks:
            return math.inf
        (began, before), now = self._marks[0], self._clock()
        recent = (self.done - before) / (now - began) if now > began else self.rate
        return (self.total - self.done) / recent if recent else math.inf

    def shares(self) -> dict[str, float]:
        """Compute the share of the workers' time since the first image that each stage took."""
        spent = self.workers * (self._last - self._first)
        return {stage: seconds / spent if spent > 0 else 0.0 for stage, seconds in self.busy.items()}

    def take(self, written: Mapping[str, Any]) -> None:
        """Count a written file (a row of `describing.WRITTEN`); prints a line if one is due."""
        self._first, self._last = min(self._first, written["began"]), max(self._last, written["ended"])
        for stage in STAGES:
            self.busy[stage] += written[stage]
        if written["table"] == "failures":
            failed: list[dict[str, str]] = orjson.loads(written["failures"])
            self.failures.update(file["kind"] for file in failed)
            self.refused += sum(is_refusal(file["stage"], file["kind"]) for file in failed)
            self.failed_files += failed
        else:
            self.described += written["row_count"]
        now = self._clock()
        if not self._marks:
            self._marks.append((now - (written["ended"] - written["began"]), 0))
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and self._marks[1][0] < now - WINDOW:
            self._marks.popleft()
        self._meters(self)
        if now - self._printed >= LINE_INTERVAL or self.done == self.total:
            self._printed = now
            log.info("%s", self)

    def __str__(self) -> str:
        """Format the progress as one line."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.failures.most_common())
        left = self.seconds_left
        shares = ", ".join(f"{100 * share:.0f} % {stage}" for stage, share in self.shares().items())
        return (
            f"{self.described} of {self.total} described, {self.failed} failed{f' ({kinds})' if kinds else ''}, "
            f"{self.rate:.1f} images/s, {_duration(left) if math.isfinite(left) else '?'} left; "
            f"of {self.workers} workers' time: {shares}"
        )


class RunMetrics:
    """Export the progress of a run on Ray's metrics port, for Prometheus."""

    def __init__(self) -> None:
        self._images = Gauge("rsir_index_images", "images of this run's plan", tag_keys=("state",))
        self._failed = Gauge("rsir_index_failed", "images that cannot be described", tag_keys=("kind",))
        self._rate = Gauge("rsir_index_rate", "images per second since the first")
        self._left = Gauge("rsir_index_seconds_left", "at the rate of the last minutes")
        self._busy = Gauge("rsir_index_busy", "share of the workers' time", tag_keys=("stage",))

    def __call__(self, progress: Progress) -> None:
        """Export the current state of a run."""
        counts = {"described": progress.described, "failed": progress.failed, "left": progress.total - progress.done}
        for state, count in counts.items():
            self._images.set(count, {"state": state})
        for kind, count in progress.failures.items():
            self._failed.set(count, {"kind": kind})
        for stage, share in progress.shares().items():
            self._busy.set(share, {"stage": stage})
        self._rate.set(progress.rate)
        self._left.set(progress.seconds_left)


def _duration(seconds: float) -> str:
    """Format a duration in hours, minutes and seconds."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {whole:02} s" if minutes else f"{whole} s"
