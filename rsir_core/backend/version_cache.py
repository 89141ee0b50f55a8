"""Cache what a worker has loaded of an index, by version."""

import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeVar

from rsir_core.index.index import Index
from rsir_core.models.allocator import give_back

T = TypeVar("T")

MAX_VERSIONS_TRIED: Final = 4  # newest versions among which a loadable one is looked for

log = logging.getLogger("ray.serve")  # whose lines are kept where the endpoint is run by Ray Serve


class VersionCache(Generic[T]):
    """Cache versions side by side, each loaded once, for any number of threads.

    Args:
        load: a version; takes its time.
    """

    def __init__(self, load: Callable[[int], T]) -> None:
        self._load = load
        self._loads: dict[int, Future[T]] = {}
        self._lock = threading.Lock()

    @property
    def newest(self) -> T:
        """The newest that is loaded."""
        with self._lock:
            return next(self._loads[v].result() for v in sorted(self._loads, reverse=True) if self._loads[v].done())

    def get(self, version: int) -> T:
        """Return a version. The first caller loads one that is not here; others wait for that.

        Raises:
            Exception: what `load` raises; then the version is not here, and who asks next tries again.
        """
        with self._lock:
            load = self._loads.get(version)
            if is_first := load is None:
                load = self._loads[version] = Future()
        if is_first:
            try:
                load.set_result(self._load(version))
            except Exception as error:  # for all who wait
                with self._lock:
                    self._loads.pop(version, None)
                load.set_exception(error)
        return load.result()

    def hold(self, versions: Collection[int]) -> dict[int, str]:
        """Load these beside what is here, then let go of all others; returns why some cannot be loaded.

        Where none of them could be loaded, what is here stays, so that there is something to answer with.
        """
        refused = {}
        for version in versions:
            try:
                self.get(version)
            except Exception as error:
                log.exception("version %d cannot be loaded", version)
                refused[version] = f"{error}" or type(error).__name__
        with self._lock:
            kept = {v: load for v, load in self._loads.items() if v in versions or not load.done()}
            if not any(v in versions for v in kept):
                kept = dict(self._loads)
            has_less, self._loads = len(kept) < len(self._loads), kept
        if has_less:
            give_back()  # the allocators keep as much as a version takes
        return refused


def load_newest(versions: VersionCache[Any], index: str) -> None:
    """Load the newest loadable version at start-up; later the router decides which versions are held.

    A worker that replaces another must start even if the newest version is broken and an older one is served.

    Raises:
        Exception: the newest version's error, if none of the last versions can be loaded.
    """
    newest = Index(index).version()
    for version in range(newest, max(newest - MAX_VERSIONS_TRIED, 0), -1):
        if not versions.hold([version]):
            return
    versions.get(newest)
