"""Index an archive, or bring its index up to date: list, diff, describe, commit, fit, project, publish."""

import json
import logging
import math
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa

from jobs.cluster import joined
from jobs.config import IndexConfig, Summary, run
from jobs.describing import describe_files
from jobs.publishing import compact, is_published, publish
from jobs.surveying import cut_scenes
from rsir_core.archive import list_images
from rsir_core.errors import ArchiveError
from rsir_core.plan import anti, listing_table, make_plan
from rsir_core.stac import list_items
from rsir_core.table import Index, WrittenFile

log = logging.getLogger(__name__)


class Committer:
    """Commits what workers wrote, every so many rows or minutes; it sees file metadata only.

    Failures are committed last, by `finish`: a run that fails for their number has not recorded them, so the next one
    tries those files again.
    """

    def __init__(self, index: Index, config: IndexConfig, total: int) -> None:
        self.index, self.config, self.total = index, config, total
        self.described = self.failed = 0
        self._pending: list[WrittenFile] = []
        self._failures: list[WrittenFile] = []
        self._reasons: Counter[str] = Counter()
        self._example = ""
        self._committed = time.monotonic()
        self._first, self._last = math.inf, -math.inf  # unix seconds by the workers' clocks

    def take(self, written: dict[str, Any]) -> None:
        """Note one file; commit when enough has gathered.

        Raises:
            ArchiveError: more files failed than allowed.
        """
        self._first, self._last = min(self._first, written["began"]), max(self._last, written["ended"])
        file = WrittenFile(written["name"], written["size"], written["row_count"])
        if written["table"] == "failures":
            self.failed += file.row_count
            self._failures.append(file)
            self._reasons.update(json.loads(written["reasons"]))
            self._example = written["example"]
            self._check()
        else:
            self.described += file.row_count
            self._pending.append(file)
        self._say()
        late = time.monotonic() - self._committed > 60 * self.config.commit_minutes
        if late or sum(f.row_count for f in self._pending) >= self.config.commit_every:
            self._commit()

    @property
    def rate(self) -> float:
        """Images per second from the first image opened to the last file written: without starting actors."""
        return self.described / (self._last - self._first) if self.described else 0.0

    def finish(self, stale_failures: pa.Table) -> None:
        """Commit the rest, and new failures in place of those that no longer hold."""
        self._commit()
        self.index.drop_failures(stale_failures)  # before: a file that was tried again can have failed again
        if self._failures:
            self.index.commit("failures", self._failures, "append")

    def _commit(self) -> None:
        if self._pending:
            self.index.commit("embeddings", self._pending, "append")
        self._pending, self._committed = [], time.monotonic()

    def _check(self) -> None:
        if self.failed > self.config.max_failure_rate * self.total:
            self._commit()  # what was described is good
            reasons = ", ".join(f"{count} {kind}" for kind, count in self._reasons.most_common(3))
            raise ArchiveError(
                f"{self.failed} of {self.total} files failed ({reasons}), more than --max-failure-rate "
                f"{self.config.max_failure_rate} allows; nothing was published. For example: {self._example}"
            )

    def _say(self) -> None:
        done = self.described + self.failed
        rate = done / (self._last - self._first)
        left = (self.total - done) / rate
        log.info("%d of %d described, %d failed, %.1f images/s, %.0f s left", self.described, self.total, self.failed,
                 rate, left)  # fmt: skip


def index_archive(config: IndexConfig) -> Summary:
    """One run of the job."""
    began = time.monotonic()
    index = Index(config.index)
    fingerprint = index.adopt_bundle(config.models)
    bundle = index.bundle(fingerprint)
    if bundle.detector is None:
        log.warning("the bundle has no detector: every key region is centred on its image")
    wanted = config.wanted
    listing = listing_table(list_images(config.archive) if wanted is None else list_items(config.archive, wanted))
    scenes = cut_scenes(index, listing, config)
    plan = make_plan(index, scenes.listing, config.retry_failed)
    plan = replace(plan, to_describe=anti(plan.to_describe, scenes.unreadable))
    log.info("%d listed: %d new, %d changed, %d gone; %d to describe", len(plan.listing), plan.new, plan.changed,
             len(plan.gone), len(plan.to_describe))  # fmt: skip
    committer = Committer(index, config, len(plan.to_describe) + len(scenes.unreadable))
    for written in scenes.failures:
        committer.take(written)
    if len(plan.to_describe) or scenes.failures or config.compact or not is_published(index, plan, config):
        with joined(config.address):
            if len(plan.to_describe):
                for written in describe_files(config, plan.to_describe).iter_rows():
                    committer.take(written)
            committer.finish(plan.stale_failures)
            publish(index, plan, bundle.classes, config)
            if config.compact:
                compact(index)
    return {
        "listed": len(plan.listing),
        "new": plan.new,
        "changed": plan.changed,
        "gone": len(plan.gone),
        "described": committer.described,
        "failed": committer.failed,
        "skipped": scenes.skipped,
        "rows": len(index.keys("features")),
        "seconds": round(time.monotonic() - began, 1),
        "images_per_second": round(committer.rate, 1),
        "version": index.version(),
    }


if __name__ == "__main__":
    sys.exit(run(index_archive, IndexConfig, "index"))
