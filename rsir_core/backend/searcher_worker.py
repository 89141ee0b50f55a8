"""The searching half of the backend: rows of an index's versions in this process."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rsir_core.backend.batch import each
from rsir_core.backend.protocol import PartitionRequest, ScoredRequest
from rsir_core.backend.version_cache import VersionCache, load_newest
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.served_version import read_version

T = TypeVar("T")


class SearcherWorker:
    """Search the rows of an index or a share of them; a `protocol.Searcher`."""

    def __init__(self, index: str, part: int = 0, parts: int = 1) -> None:
        self._versions = VersionCache(lambda version: PartitionSearch(read_version(index, version), part, parts))
        # Ray Serve gives a replica few threads, and scoring may read for minutes while others wait for the same. That
        # must not keep searches waiting, nor health checks, for whose delay the replica would be replaced.
        self._scoring, self._checking = ThreadPoolExecutor(1, "scoring"), ThreadPoolExecutor(1, "health")
        load_newest(self._versions, index)

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Hold these versions; see `VersionCache.hold`."""
        return await asyncio.to_thread(self._versions.hold, versions)

    async def answer(self, asked: list[PartitionRequest[T]]) -> list[T | Exception]:
        """Answer from the rows."""

        def answer_one(request: PartitionRequest[T]) -> T:
            return request.answer(self._versions.get(request.version))

        threads = self._scoring if any(isinstance(request, ScoredRequest) for request in asked) else None
        return await asyncio.get_running_loop().run_in_executor(threads, each, answer_one, asked)

    async def check_health(self) -> None:
        """Raise if queries fail; called by Ray Serve, which replaces a replica that fails or does not answer."""
        await asyncio.get_running_loop().run_in_executor(self._checking, lambda: self._versions.newest.probe())
