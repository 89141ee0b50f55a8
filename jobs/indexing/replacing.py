"""New rows in the place of others: files that hold some of these are written anew on the cluster, one per task."""

from collections.abc import Sequence

import pyarrow as pa
import ray

from jobs.indexing.committing import Commits
from rsir_core.delta import TableFile, WrittenFile
from rsir_core.replacing import Replaced, without_rows
from rsir_core.table import Index


def replace_rows(commits: Commits, files: Sequence[WrittenFile], leaving: pa.Array) -> None:
    """Put written files of `features` in the place of the rows of some image ids, in one atomic commit.

    Files without such a row stay as they are. This process sees metadata only.

    Args:
        commits: of the run.
        files: the new rows.
        leaving: image ids to remove: those that are gone, and those that the new rows have.
    """
    rewrite = ray.remote(_without_rows)
    ids, uri = ray.put(leaving), commits.index.uri
    answers: list[Replaced | None] = ray.get([rewrite.remote(uri, file, ids) for file in commits.index.feature_files()])
    replaced = [answer for answer in answers if answer is not None]
    kept = [answer.kept for answer in replaced if answer.kept is not None]
    commits.commit("features", [*files, *kept], "append", [answer.removed for answer in replaced])


def _without_rows(uri: str, file: TableFile, leaving: pa.Array) -> Replaced | None:
    return without_rows(Index(uri), file, leaving)
