"""Memory of a process and of all that it started, as the kernel counts it."""

import os
import threading
from pathlib import Path
from typing import Self


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
            parents.setdefault(parent, []).append(int(folder.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += parents.get(found[-1], [])
    return found


def held(pid: int) -> int:
    """Bytes of a process, what it shares with others in equal shares; 0: it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def peak() -> int:
    """The most bytes that this process has held since the last call, as the kernel keeps count of it anyway."""
    status = Path("/proc/self/status").read_text().splitlines()
    most = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    Path("/proc/self/clear_refs").write_text("5")
    return most


class Watch:
    """Looks at the memory of a tree of processes, every so often, during a `with` block.

    Attributes:
        peak: the most that all of them held at once, in bytes.
        largest: the most that one of them held that is not the root.
        root: the most that the root held.
    """

    def __init__(self, root: int | None = None, every: float = 0.5) -> None:
        self.peak = self.largest = self.root = 0
        self._root, self._every = root or os.getpid(), every
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def now(self) -> int:
        """What the root holds, in bytes."""
        return held(self._root)

    def _look(self) -> None:
        while not self._end.wait(self._every):
            each = {pid: held(pid) for pid in tree(self._root)}
            self.peak = max(self.peak, sum(each.values()))
            self.root = max(self.root, each.get(self._root, 0))
            self.largest = max(self.largest, *(n for pid, n in each.items() if pid != self._root), 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
