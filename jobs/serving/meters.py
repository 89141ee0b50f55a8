"""What Prometheus reads on Ray's metrics port; and one JSON object per request in Serve's log of the ingress."""

import dataclasses
import logging
from typing import Any, Final

from ray.serve.metrics import Counter, Gauge, Histogram

from jobs.serving.journal import Entry
from jobs.serving.library import Library

STAGES_MS: Final = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 6e4]

# Ray's annotation says that there is one key.
ROUTE_STATUS: Final[Any] = ("route", "status")
ROUTE_STAGE: Final[Any] = ("route", "stage")

log = logging.getLogger("ray.serve")


class Meters:
    """Counts and logs requests; may be called by one thread at a time.

    Args:
        library: whose state is told with them.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._requests = Counter("rsir_requests", "requests", tag_keys=ROUTE_STATUS)
        self._ms = Histogram("rsir_stage_ms", "milliseconds", boundaries=STAGES_MS, tag_keys=ROUTE_STAGE)
        self._uploads = Counter("rsir_uploads", "uploads described", tag_keys=("object",))
        self._rows = Gauge("rsir_rows", "images in the version that is served")
        self._version = Gauge("rsir_version", "version of the index that is served")

    def __call__(self, entry: Entry) -> None:
        """Take note of a request."""
        self._requests.inc(tags={"route": entry.route, "status": str(entry.status)})
        for stage, milliseconds in entry.ms.items():
            self._ms.observe(milliseconds, tags={"route": entry.route, "stage": stage})
        if entry.found_object is not None:
            self._uploads.inc(tags={"object": "found" if entry.found_object else "none"})
        edition = self._library.edition
        self._rows.set(edition.images)
        self._version.set(edition.version)
        log.info("request", extra={"request": dataclasses.asdict(entry), "log_to_stderr": False})
