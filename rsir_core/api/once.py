"""Load something once, when it is first needed, whichever of several threads needs it first."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Call a function at the first call, and return its result at every call; a failure is tried again.

    Args:
        load: the function; takes its time.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._load, self._lock = load, threading.Lock()
        self._loaded: list[T] = []  # at most one

    def __call__(self) -> T:
        """Return what was loaded."""
        if not self._loaded:
            with self._lock:
                if not self._loaded:
                    self._loaded.append(self._load())
        return self._loaded[0]
