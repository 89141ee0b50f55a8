"""When the rows of a run become visible: every so many rows or minutes, and failures at its end."""

import time
from typing import Any, Final, NoReturn

import pyarrow as pa

from jobs.indexing.options import IndexConfig
from jobs.indexing.progress import Progress
from rsir_core.errors import ArchiveError
from rsir_core.index.delta import WrittenFile
from rsir_core.index.writer import IndexWriter

SILENT_FROM: Final = 20  # files: where so many or more are asked for and none can be read in time, it is the store


class Committer:
    """Commits what workers wrote, every so many rows or minutes; it sees file metadata only.

    Failures are committed last, by `finish`: a run that ends because the store refuses has not recorded them, so the
    next one tries those files again.

    Args:
        writer: of the run.
        config: of the job.
        progress: told of each file.
        unpublished: images of which a share may fail: those that the run describes, or has described before.
    """

    def __init__(self, writer: IndexWriter, config: IndexConfig, progress: Progress, unpublished: int) -> None:
        self._writer, self._config, self._progress, self._unpublished = writer, config, progress, unpublished
        self._pending: list[WrittenFile] = []
        self._failures: list[WrittenFile] = []
        self._committed = time.monotonic()

    def take(self, written: dict[str, Any]) -> None:
        """Note one file; commit when enough has gathered.

        Raises:
            ArchiveError: the store refuses more files than may fail.
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
        """Commit the rest, and new failures in place of those that no longer hold.

        Raises:
            ArchiveError: many files were asked for, and the store has answered for none.
        """
        self._commit()
        progress = self._progress
        unanswered = progress.refused + progress.failures["timeout"]
        if progress.described == 0 and unanswered == progress.failed >= SILENT_FROM:
            self._give_up(f"none of {progress.failed} files was read")
        self._writer.drop_failures(stale_failures)  # before: a file that was tried again can have failed again
        if self._failures:
            self._writer.commit("failures", self._failures, "append")

    def _commit(self) -> None:
        if self._pending:
            self._writer.commit("embeddings", self._pending, "append")
        self._pending, self._committed = [], time.monotonic()

    @property
    def problem(self) -> str | None:
        """Say that a run that is done had more failures than allowed; None: it had not."""
        failed = self._progress.failed
        if not self._are_too_many(failed):
            return None
        reasons = ", ".join(f"{count} {kind}" for kind, count in self._progress.failures.most_common(3))
        return (
            f"done, with more failures than --max-failure-rate {self._config.max_failure_rate:g} allows: {failed} of "
            f"{self._unpublished} files ({reasons}); all others are published"
        )

    def _are_too_many(self, failed: int) -> bool:
        """Tell whether so many failures exceed the limit. One file is no rate: of few, any would be too many."""
        most = self._config.max_failure_rate
        return failed > most * self._unpublished and (failed > 1 or most == 0)

    def _give_up(self, what: str) -> NoReturn:
        self._commit()  # what was described is good
        kinds = self._progress.failures.most_common(3)
        reasons = ", ".join(f"{count} {kind}" for kind, count in kinds)
        raise ArchiveError(
            f"{what} ({reasons}); nothing was published. For example: {self._progress.examples[kinds[0][0]]}. Check "
            "address, network and credentials, then run the same command again; --max-failure-rate 1 goes on all the "
            "same"
        )
