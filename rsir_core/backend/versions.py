"""Choose the version that a query gets: the newest that all workers have loaded, or the one that it asks for."""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, NamedTuple

import pyarrow as pa

from rsir_core.backend.protocol import VersionHolder
from rsir_core.backend.version_cache import MAX_VERSIONS_TRIED
from rsir_core.errors import QueryError, RsirError, StorageError, TableError
from rsir_core.index.index import Index
from rsir_core.index.last_run import LastRun, get_last_run
from rsir_core.index.no_match import get_no_match_threshold, has_no_match_threshold
from rsir_core.retrieval.served_version import ServedVersion, read_version

KEEP: Final = 60.0  # seconds that an older version stays loaded after its last query; meanwhile no other old one is
RETRY: Final = 60.0  # seconds after which a newest version that could not be loaded is tried again

log = logging.getLogger("ray.serve")


class UnloadableVersion(NamedTuple):
    """Hold a newest version that cannot be loaded, and why."""

    version: int
    why: str
    retry_at: float  # monotonic


class LoadedVersions:
    """Keep track of the loaded versions; running queries keep theirs.

    There must be one of these per backend, since it says what the backend holds.

    Args:
        index: URI.
        backend: what loads the versions.
        every: seconds between looks for a newer version.

    Attributes:
        last_run: what the newest run of the index job came to, as of the last refresh; None: that is not known.

    Raises:
        TableError, BundleError: there is nothing complete to serve.
    """

    def __init__(self, index: str, backend: VersionHolder, every: float = 10.0) -> None:
        self._index, self._backend, self._every = index, backend, every
        self.last_run: LastRun | None = None
        newest = read_version(index)
        self._current = newest.version
        self._loaded = {newest.version: newest}
        self._queries: Counter[int] = Counter()
        self._used: dict[int, float] = {}  # when versions were last asked for by number, monotonic
        self._fetches: dict[int, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._refused: UnloadableVersion | None = None
        self._threshold_of: int | None = None  # the version whose own thresholds are known to be taken
        self._is_held = False  # whether all of the backend is known to have loaded a version that is served

    @property
    def newest(self) -> ServedVersion:
        """Return the version that is served to queries that ask for none."""
        return self._loaded[self._current]

    @property
    def numbers(self) -> list[int]:
        """List the versions that are loaded."""
        return sorted(self._loaded)

    @property
    def problem(self) -> str | None:
        """Why the newest version is not served; None: it is."""
        return self._refused and f"version {self._refused.version} cannot be loaded: {self._refused.why}"

    @asynccontextmanager
    async def lend(self, version: int | None) -> AsyncIterator[ServedVersion]:
        """Lend a version, or the newest, for one query.

        Raises:
            QueryError: there is no such version, or another old one is in use.
            StorageError: the store does not answer.
        """
        if version is None:
            version = self._current
        else:  # recorded for the newest too, so that it stays loaded for this client after a newer one appears
            if version not in self._loaded:
                await self._fetched(version)
            self._used[version] = time.monotonic()
        self._queries[version] += 1
        try:
            yield self._loaded[version]
        finally:
            self._queries[version] -= 1

    async def refresh(self) -> None:
        """Serve the newest version, once it is loaded beside the old; let go of what is not asked for any more."""
        newest = await asyncio.to_thread(Index(self._index).version)
        async with self._turn:
            if newest == self._current:
                self._refused = None
                await self._load_threshold()
            elif not (self._refused and self._refused.version == newest and time.monotonic() < self._refused.retry_at):
                await self._swap(newest)
            self._loaded = {version: served for version, served in self._loaded.items() if self._is_wanted(version)}
            refused = await self._backend.hold(self.numbers)
            if not self._is_held:
                self._is_held = self._current not in refused or await self._fall_back(refused[self._current])
        self.last_run = await asyncio.to_thread(get_last_run, Index(self._index))

    async def keep_fresh(self) -> None:
        """Refresh every so often, for ever."""
        while True:
            try:
                await self.refresh()
            except Exception:  # a storage that does not answer for a while must not end this; what is loaded serves on
                log.exception("looking for a newer version of %s failed; tried again in %g s", self._index, self._every)
            await asyncio.sleep(self._every)

    async def _swap(self, newest: int) -> None:
        try:
            self._loaded[newest] = await self._load(newest)
        except RsirError as error:
            log.error("version %d is not served: %s", newest, error)
            self._refused = UnloadableVersion(newest, str(error), time.monotonic() + RETRY)
        else:
            self._current, self._refused = newest, None

    async def _fall_back(self, why: str) -> bool:
        """Serve the newest older version that loads, since the first to be served does not; tells if there is one."""
        broken = self._current
        for version in range(broken - 1, max(broken - MAX_VERSIONS_TRIED, 0), -1):
            try:
                served = await self._load(version)
            except RsirError as error:
                log.error("version %d is not served: %s", version, error)
                continue
            log.error("version %d is not served, but %d: %s", broken, version, why)
            self._loaded[version], self._current = served, version
            self._loaded = {number: held for number, held in self._loaded.items() if self._is_wanted(number)}
            self._refused = UnloadableVersion(broken, why, time.monotonic() + RETRY)
            await self._backend.hold(self.numbers)
            return True
        log.error("version %d cannot be loaded, nor one of those before it: %s", broken, why)
        return False

    async def _load_threshold(self) -> None:
        """Take the thresholds of the newest version, which are stored once it is published."""
        served, index = self.newest, Index(self._index)
        if served.version == self._threshold_of:
            return
        if await asyncio.to_thread(has_no_match_threshold, index, served.version):
            known = await asyncio.to_thread(get_no_match_threshold, index, served.version, served.bundle, served.pca)
            self._loaded[served.version] = replace(served, no_match=known)
            self._threshold_of = served.version

    async def _fetched(self, version: int) -> None:
        """Load an older version, in a task of its own, so that a client that leaves does not end it for others."""
        if version > self._current:
            raise QueryError(f"no version {version} is served; the newest is {self._current}", "unknown")
        if version not in self._fetches:
            now = time.monotonic()
            old = (v for v in self._loaded if v != self._current)
            busy = [v for v in old if now < self._used.get(v, -math.inf) + KEEP]
            if busy or self._fetches:
                raise QueryError(
                    f"version {version} is not loaded, and another is in use; try again in a minute", "busy"
                )
            self._fetches[version] = task = asyncio.create_task(self._fetch(version))
            task.add_done_callback(lambda _: self._fetches.pop(version))
        await asyncio.shield(self._fetches[version])

    async def _fetch(self, version: int) -> None:
        async with self._turn:
            try:
                self._loaded[version] = await self._load(version)
            except StorageError:  # it may answer again
                raise
            except RsirError as error:
                raise QueryError(f"version: {error}", "unknown") from error
            self._used[version] = time.monotonic()

    async def _load(self, version: int) -> ServedVersion:
        """Return a version, once all of the backend has loaded it.

        Raises:
            RsirError: they cannot.
        """
        try:
            served = await asyncio.to_thread(read_version, self._index, version)
        except (OSError, pa.ArrowException) as error:
            raise TableError(
                f"version {version} of {self._index} has files that are gone or damaged ({error}); ask for another"
            ) from error
        refused = await self._backend.hold([*self.numbers, version])
        if version in refused:
            raise RsirError(refused[version])
        return served

    def _is_wanted(self, version: int) -> bool:
        recently = time.monotonic() < self._used.get(version, -math.inf) + KEEP
        return version == self._current or self._queries[version] > 0 or recently
