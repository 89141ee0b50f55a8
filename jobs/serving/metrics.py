"""Export the endpoint's metrics on Ray's metrics port, and log one JSON object per request in the ingress's log."""

import dataclasses
import logging
from typing import Any, Final

from ray.serve.metrics import Counter, Gauge, Histogram

from rsir_core.backend.versions import LoadedVersions
from rsir_core.endpoint.access_log import Entry
from rsir_core.index.last_run import LastRun

STAGES_MS: Final = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 6e4]

# Ray's annotation says that there is one key.
ROUTE_STATUS: Final[Any] = ("route", "status")
ROUTE_STAGE: Final[Any] = ("route", "stage")

log = logging.getLogger("ray.serve")


class RequestMetrics:
    """Count and log requests; may be called by one thread at a time.

    Args:
        versions: whose state is exported with them.
    """

    def __init__(self, versions: LoadedVersions) -> None:
        self._versions = versions
        self._requests = Counter("rsir_requests", "requests", tag_keys=ROUTE_STATUS)
        self._ms = Histogram("rsir_stage_ms", "milliseconds", boundaries=STAGES_MS, tag_keys=ROUTE_STAGE)
        self._uploads = Counter("rsir_uploads", "uploads described", tag_keys=("object",))
        self._rows = Gauge("rsir_rows", "images in the version that is served")
        self._version = Gauge("rsir_version", "version of the index that is served")
        self._last_run = LastRunMetrics()

    def __call__(self, entry: Entry) -> None:
        """Take note of a request."""
        self._requests.inc(tags={"route": entry.route, "status": str(entry.status)})
        for stage, milliseconds in entry.ms.items():
            self._ms.observe(milliseconds, tags={"route": entry.route, "stage": stage})
        if entry.found_object is not None:
            self._uploads.inc(tags={"object": "found" if entry.found_object else "none"})
        newest = self._versions.newest
        self._rows.set(newest.images)
        self._version.set(newest.version)
        self._last_run(self._versions.last_run)
        log.info("request", extra={"request": dataclasses.asdict(entry), "log_to_stderr": False})


class LastRunMetrics:
    """Export what the newest run of the index job came to; the job's own metrics end with the job."""

    def __init__(self) -> None:
        self._time = Gauge("rsir_last_run_time", "Unix seconds at which the newest index run ended")
        self._good = Gauge("rsir_last_good_run_time", "Unix seconds at which the newest run that was done ended")
        self._failed = Gauge("rsir_last_run_failed", "images that the newest run cannot describe", tag_keys=("kind",))
        self._drift = Gauge("rsir_last_run_drift", "PCA error on the newest run's new images, as a multiple of the old")
        self._shift = Gauge("rsir_last_run_class_shift", "share of its new images by which the class mix moved")
        self._refit = Gauge("rsir_last_run_suggests_refit", "1: its new images advise jobs.index --refit-pca")
        self._exported: LastRun | None = None
        self._kinds: set[str] = set()

    def __call__(self, run: LastRun | None) -> None:
        """Set the gauges where the run is another one than before."""
        if run is None or run == self._exported:
            return
        self._exported = run
        self._kinds |= run.failed.keys()
        for kind in self._kinds:  # a kind that the run before had and this one has not is 0 now
            self._failed.set(run.failed.get(kind, 0), {"kind": kind})
        self._time.set(run.time)
        if run.good_time is not None:
            self._good.set(run.good_time)
        for gauge, value in ((self._drift, run.drift), (self._shift, run.class_shift)):
            if value is not None:
                gauge.set(value)
        self._refit.set(int(run.suggests_refit))
