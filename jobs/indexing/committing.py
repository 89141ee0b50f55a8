"""Commit a run's rows: embeddings every so many rows or minutes, failures at the end."""

import time
from typing import Any, Final, NoReturn

import pyarrow as pa

from jobs.indexing.options import ROUNDING, IndexConfig
from jobs.indexing.progress import Progress
from rsir_core.errors import ArchiveError
from rsir_core.index.delta import WrittenFile
from rsir_core.index.writer import IndexWriter

MIN_UNANSWERED: Final = 20  # files; if none of so many can be read in time, the store is to blame


class Committer:
    """Commit the files that workers wrote, every so many rows or minutes; only file metadata passes through here.

    Failures are committed last, by `finish`. A run that ends because the store refuses does not record them, so the
    next run tries those files again.

    Args:
        writer: the run's writer.
        config: the job's options.
        progress: updated with each file.
        unpublished: number of images that `--max-failure-rate` refers to: not published yet, described or not.
    """

    def __init__(self, writer: IndexWriter, config: IndexConfig, progress: Progress, unpublished: int) -> None:
        self._writer, self._config, self._progress, self._unpublished = writer, config, progress, unpublished
        self._pending: list[WrittenFile] = []
        self._failures: list[WrittenFile] = []
        self._committed = time.monotonic()

    def take(self, written: dict[str, Any]) -> None:
        """Add one written file; commit when enough rows or minutes have passed.

        Raises:
            ArchiveError: the store refused more files than may fail.
        """
        self._progress.take(written)
        file = WrittenFile(written["name"], written["size"], written["row_count"])
        if written["table"] == "failures":
            self._failures.append(file)
            if self._are_too_many(self._progress.refused):
                self._give_up(f"the store refused {self._progress.refused} of {self._unpublished} files")
        else:
            self._pending.append(file)
        late = time.monotonic() - self._committed > 60 * self._config.commit_minutes
        if late or sum(f.row_count for f in self._pending) >= self._config.commit_every:
            self._commit()

    def finish(self, stale_failures: pa.Table) -> None:
        """Commit the remaining rows, drop stale failures and commit new ones.

        Raises:
            ArchiveError: the store answered for none of many files.
        """
        self._commit()
        progress = self._progress
        unanswered = progress.refused + progress.failures["timeout"]
        is_silent = progress.described == 0 and unanswered == progress.failed >= MIN_UNANSWERED
        if is_silent and self._config.max_failure_rate < 1:
            self._give_up(f"none of {progress.failed} files was read")
        self._writer.drop_failures(stale_failures)  # first, because a file that was retried may have failed again
        if self._failures:
            self._writer.commit("failures", self._failures, "append")

    def _commit(self) -> None:
        if self._pending:
            self._writer.commit("embeddings", self._pending, "append")
        self._pending, self._committed = [], time.monotonic()

    @property
    def problem(self) -> str | None:
        """The message of a run that is done with more failures than allowed; None if they are within the limit."""
        failed = self._progress.failed
        if not self._are_too_many(failed):
            return None
        reasons = ", ".join(f"{count} {kind}" for kind, count in self._progress.failures.most_common(3))
        return (
            f"done, with more failures than --max-failure-rate {self._config.max_failure_rate:g} allows: {failed} of "
            f"{self._unpublished} files ({reasons}); all others are published"
        )

    def _are_too_many(self, failed: int) -> bool:
        """Tell whether the failures exceed the limit. A single failure never does, unless the limit is 0."""
        limit = self._config.max_failure_rate
        return failed > limit * self._unpublished + ROUNDING and (failed > 1 or limit == 0)

    def _give_up(self, what: str) -> NoReturn:
        self._commit()  # keep what was described
        kinds = self._progress.failures.most_common(3)
        reasons = ", ".join(f"{count} {kind}" for kind, count in kinds)
        raise ArchiveError(
            f"{what} ({reasons}); nothing was published. For example: {self._progress.examples[kinds[0][0]]}. Check "
            "address, network and credentials, then run the same command again; --max-failure-rate 1 goes on all the "
            "same"
        )
