"""Replace rows of `features`: files that contain them are rewritten on the cluster, one file per task."""

from collections.abc import Sequence

import pyarrow as pa
import ray

from rsir_core.index.delta import TableFile, WrittenFile
from rsir_core.index.index import Index
from rsir_core.index.replace import Replaced, without_rows
from rsir_core.index.writer import IndexWriter


class Replacing:
    """Rewrite files of `features` in the background, starting at construction; only metadata passes through here.

    Files without a row to remove stay as they are.

    Args:
        index: the index, at its newest version.
        leaving: image ids of the rows to remove: images that are gone, and images that have new rows.
    """

    def __init__(self, index: Index, leaving: pa.Array) -> None:
        rewrite, ids = ray.remote(_without_rows), ray.put(leaving)
        self._answers = [rewrite.remote(index.uri, file, ids) for file in index.feature_files()]

    def commit(self, writer: IndexWriter, files: Sequence[WrittenFile]) -> None:
        """Commit the files of new rows and the rewritten files in place of the old ones, atomically."""
        answers: list[Replaced | None] = ray.get(self._answers)
        replaced = [answer for answer in answers if answer is not None]
        kept = [answer.kept for answer in replaced if answer.kept is not None]
        writer.commit("features", [*files, *kept], "append", [answer.removed for answer in replaced])


def _without_rows(uri: str, file: TableFile, leaving: pa.Array) -> Replaced | None:
    return without_rows(Index(uri), file, leaving)
