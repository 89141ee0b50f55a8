"""New rows in the place of others: files that hold some of these are written anew on the cluster, one per task."""

from collections.abc import Sequence

import pyarrow as pa
import ray

from rsir_core.index.delta import TableFile, WrittenFile
from rsir_core.index.index import Index
from rsir_core.index.replace import Replaced, without_rows
from rsir_core.index.writer import IndexWriter


class Replacing:
    """The rewriting of files of `features`, under way since this was made; this process sees metadata only.

    Files without a row that leaves stay as they are.

    Args:
        index: whose files, those of its newest version.
        leaving: image ids of rows to remove: those that are gone, and those that have new rows.
    """

    def __init__(self, index: Index, leaving: pa.Array) -> None:
        rewrite, ids = ray.remote(_without_rows), ray.put(leaving)
        self._answers = [rewrite.remote(index.uri, file, ids) for file in index.feature_files()]

    def commit(self, writer: IndexWriter, files: Sequence[WrittenFile]) -> None:
        """Put written files of new rows in the place of the rows that leave, in one atomic commit."""
        answers: list[Replaced | None] = ray.get(self._answers)
        replaced = [answer for answer in answers if answer is not None]
        kept = [answer.kept for answer in replaced if answer.kept is not None]
        writer.commit("features", [*files, *kept], "append", [answer.removed for answer in replaced])


def _without_rows(uri: str, file: TableFile, leaving: pa.Array) -> Replaced | None:
    return without_rows(Index(uri), file, leaving)
