"""Progress of a run, on the terminal and as Ray metrics: images, rate, remaining time, failures, workers' time."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from ray.util.metrics import Gauge

from jobs.meter import Meter
from rsir_core.errors import is_refusal

STAGES: Final = ("reading", "describing", "writing")

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
        meter: what shows it.
        busy: seconds that workers spent in each stage, including separate reading tasks beside GPUs.
    """

    def __init__(self, total: int, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.workers, self.described = total, workers, 0
        self.failures: Counter[str] = Counter()
        self.failed_files: list[dict[str, str]] = []
        self.refused = 0
        self.busy = dict.fromkeys(STAGES, 0.0)
        self.meter = Meter(total, log, clock)
        self._first, self._last = math.inf, -math.inf  # Unix seconds, by the workers' clocks
        self._gauges = RunMetrics()

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
        self._gauges(self)
        self.meter.mark(self.done)
        self.meter.show(str(self))

    def __str__(self) -> str:
        """Format the progress as one line."""
        recent = self.meter.rate if self.done < self.total else 0.0
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.failures.most_common())
        shares = ", ".join(f"{100 * share:.0f} % {stage}" for stage, share in self.shares().items())
        return (
            f"{self.described} of {self.total} described, {self.failed} failed{f' ({kinds})' if kinds else ''}, "
            f"{recent or self.rate:.1f} images/s, {self.meter.time_left}; "
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
        self._left.set(progress.meter.seconds_left)
