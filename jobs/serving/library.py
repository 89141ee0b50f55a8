"""Which version of the index a query gets: the newest that everything has loaded, or one that it asks for."""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

import pyarrow as pa

from jobs.serving.gather import Backend
from jobs.serving.query import ServedVersion, open_version
from rsir_core.errors import QueryError, RsirError, TableError
from rsir_core.index.index import Index
from rsir_core.index.last_run import LastRun, get_last_run
from rsir_core.index.no_match import get_no_match, has_no_match

KEEP: Final = 60.0  # seconds that an older version stays loaded after its last query; meanwhile no other old one is
RETRY: Final = 60.0  # seconds after which a newest version that could not be loaded is tried again

log = logging.getLogger("ray.serve")


class Fleet(Protocol):
    """Reach all that answers queries: describers, and searchers of each share of the rows."""

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Let all of them load these versions and let go of others; returns why some cannot be loaded."""

    def backend(self, edition: ServedVersion) -> Backend:
        """Return what answers by one version."""


class UnloadableVersion(NamedTuple):
    """A newest version that cannot be loaded."""

    version: int
    why: str
    retry_at: float  # monotonic


class Library:
    """The versions that are loaded. Queries that are under way keep theirs.

    There must be one library per fleet, since it says what the fleet holds.

    Args:
        index: URI.
        fleet: what loads and answers.

    Attributes:
        last_run: what the newest run of the index job came to, as of the last refresh; None: that is not known.

    Raises:
        TableError, BundleError: there is nothing complete to serve.
    """

    def __init__(self, index: str, fleet: Fleet) -> None:
        self._index, self._fleet = index, fleet
        self.last_run: LastRun | None = None
        newest = open_version(index)
        self._current = newest.version
        self._backends = {newest.version: fleet.backend(newest)}
        self._queries: Counter[int] = Counter()
        self._used: dict[int, float] = {}  # when versions were last asked for by number, monotonic
        self._fetches: dict[int, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._refused: UnloadableVersion | None = None
        self._judged: int | None = None  # the version whose own thresholds are known to be taken

    @property
    def edition(self) -> ServedVersion:
        """Return the version that is served to queries that ask for none."""
        return self._backends[self._current].edition

    @property
    def versions(self) -> list[int]:
        """List the versions that are loaded."""
        return sorted(self._backends)

    @property
    def problem(self) -> str | None:
        """Why the newest version is not served; None: it is."""
        return self._refused and f"version {self._refused.version} cannot be loaded: {self._refused.why}"

    @asynccontextmanager
    async def lend(self, version: int | None) -> AsyncIterator[Backend]:
        """Lend the backend of a version, or of the newest, for one query.

        Raises:
            QueryError: 404, there is no such version; 503, another old one is in use.
        """
        if version is None:
            version = self._current
        else:  # noted of the newest, too: it stays for who asks for it when there is a newer one
            if version not in self._backends:
                await self._fetched(version)
            self._used[version] = time.monotonic()
        self._queries[version] += 1
        try:
            yield self._backends[version]
        finally:
            self._queries[version] -= 1

    async def refresh(self) -> None:
        """Serve the newest version, once it is loaded beside the old; let go of what is not asked for any more."""
        newest = await asyncio.to_thread(Index(self._index).version)
        async with self._turn:
            if newest == self._current:
                self._refused = None
                await self._judge()
            elif not (self._refused and self._refused.version == newest and time.monotonic() < self._refused.retry_at):
                await self._swap(newest)
            self._backends = {v: backend for v, backend in self._backends.items() if self._is_wanted(v)}
            await self._fleet.hold(self.versions)
        self.last_run = await asyncio.to_thread(get_last_run, Index(self._index))

    @asynccontextmanager
    async def refreshing(self, every: float) -> AsyncIterator[None]:
        """Do that every so many seconds, while the body runs."""
        task = asyncio.create_task(self._refresh_for_ever(every))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _refresh_for_ever(self, every: float) -> None:
        while True:
            try:
                await self.refresh()
            except Exception:  # a storage that does not answer for a while must not end this; what is loaded serves on
                log.exception("looking for a newer version of %s failed; tried again in %g s", self._index, every)
            await asyncio.sleep(every)

    async def _swap(self, newest: int) -> None:
        try:
            self._backends[newest] = await self._loaded(newest)
        except RsirError as error:
            log.error("version %d is not served: %s", newest, error)
            self._refused = UnloadableVersion(newest, str(error), time.monotonic() + RETRY)
        else:
            self._current, self._refused = newest, None

    async def _judge(self) -> None:
        """Take the thresholds of the newest version, which are stored once it is published."""
        edition = self.edition
        if edition.version == self._judged:
            return
        index = Index(self._index)
        if await asyncio.to_thread(has_no_match, index, edition.version):
            known = await asyncio.to_thread(get_no_match, index, edition.version, edition.bundle, edition.pca)
            self._backends[edition.version] = self._fleet.backend(replace(edition, no_match=known))
            self._judged = edition.version

    async def _fetched(self, version: int) -> None:
        """Load an older version, in a task of its own, so that a client that leaves does not end it for others."""
        if version > self._current:
            raise QueryError(f"no version {version} is served; the newest is {self._current}", 404)
        if version not in self._fetches:
            now = time.monotonic()
            old = (v for v in self._backends if v != self._current)
            busy = [v for v in old if now < self._used.get(v, -math.inf) + KEEP]
            if busy or self._fetches:
                raise QueryError(f"version {version} is not loaded, and another is in use; try again in a minute", 503)
            self._fetches[version] = task = asyncio.create_task(self._fetch(version))
            task.add_done_callback(lambda _: self._fetches.pop(version))
        await asyncio.shield(self._fetches[version])

    async def _fetch(self, version: int) -> None:
        async with self._turn:
            try:
                backend = await self._loaded(version)
            except RsirError as error:
                raise QueryError(f"version: {error}", 404) from error
            self._backends[version], self._used[version] = backend, time.monotonic()

    async def _loaded(self, version: int) -> Backend:
        """Return the backend of a version, once all replicas have loaded it.

        Raises:
            RsirError: they cannot.
        """
        try:
            edition = await asyncio.to_thread(open_version, self._index, version)
        except (OSError, pa.ArrowException) as error:
            raise TableError(
                f"version {version} of {self._index} has files that are gone or damaged ({error}); ask for another"
            ) from error
        refused = await self._fleet.hold([*self.versions, version])
        if version in refused:
            raise RsirError(refused[version])
        return self._fleet.backend(edition)

    def _is_wanted(self, version: int) -> bool:
        recently = time.monotonic() < self._used.get(version, -math.inf) + KEEP
        return version == self._current or self._queries[version] > 0 or recently
