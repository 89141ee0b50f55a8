"""The searching half of the backend: rows of an index's versions in this process."""

import asyncio
from typing import TypeVar

from rsir_core.backend.batch import each
from rsir_core.backend.protocol import PartitionRequest
from rsir_core.backend.version_cache import VersionCache, load_newest
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.served_version import read_version

T = TypeVar("T")


class SearcherWorker:
    """Search the rows of an index or a share of them; a `protocol.Searcher`."""

    def __init__(self, index: str, part: int = 0, parts: int = 1) -> None:
        self._versions = VersionCache(lambda version: PartitionSearch(read_version(index, version), part, parts))
        load_newest(self._versions, index)

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Hold these versions; see `VersionCache.hold`."""
        return await asyncio.to_thread(self._versions.hold, versions)

    async def answer(self, asked: list[PartitionRequest[T]]) -> list[T | Exception]:
        """Answer from the rows."""
        return await asyncio.to_thread(each, lambda request: request.answer(self._versions.get(request.version)), asked)

    async def check_health(self) -> None:
        """Raise if queries fail; called by Ray Serve, which replaces a replica that fails or does not answer."""
        await asyncio.to_thread(self._versions.newest.probe)
