"""The right to change an index, held by one run at a time; it lies in the index's storage.

Each holder has a file of its own, `lease/<generation>.json`, which is created only where there is none (a hard link,
`If-None-Match`, …); the highest generation holds the lease. Its holder writes the file again every few seconds. Who
finds a lease that is neither given back nor of a process that is seen to be dead watches it: one that is renewed
meanwhile is held, one that is not for `TTL` seconds is taken over by creating the next generation. No two machines'
clocks are compared.

What this guarantees: of two that want the lease at once one gets it, where the store creates files exclusively and
lists what was written (local disks, S3, GCS and Azure do; on a store that ignores the condition both could believe that
they have it, until the next renewal, which finds a foreign token). It cannot stop a holder that is suspended for longer
than `TTL` and wakes up between `check` and what it does then. Commits are therefore made for the version that the run
has seen, and fail where somebody else has committed since (`IndexWriter.commit`).
"""

import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rsir_core.errors import LeaseError
from rsir_core.storage.filesystem import create_file, get_file, names_in, opened, put_file

TTL: Final = 60.0  # seconds without a renewal after which a holder counts as dead
BEAT: Final = 10.0  # seconds between renewals

log = logging.getLogger(__name__)


HIDDEN: Final = "hidden"  # when a process was started that this user may not look at


@dataclass(frozen=True)
class Holder:
    """Identify who holds, or held, a lease, as its file says.

    Attributes:
        name: for people: user, host and process.
        machine: what tells machines (and containers) apart; empty where that is not known.
        pid: the process.
        started: when it was started, by the machine's own count, as process ids are used again.
        since: ISO 8601, by its own clock.
        renewed: the same, when it last said that it is alive.
        token: random, another one for each holder.
        released: it has given the lease back.
    """

    name: str
    machine: str
    pid: int
    started: str
    since: str
    renewed: str
    token: str
    released: bool = False

    @classmethod
    def this(cls) -> "Holder":
        """Identify this process."""
        now, pid = _now(), os.getpid()
        name = f"{_user()} on {socket.gethostname()}, process {pid}"
        return cls(name, _machine(), pid, _started(pid) or "", now, now, uuid.uuid4().hex)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Holder":
        """Parse the inverse of `to_bytes`; a file that is still being written gives somebody unknown."""
        try:
            content: dict[str, Any] = json.loads(data)
            return cls(**{f.name: content[f.name] for f in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return cls("somebody whose lease cannot be read", "", 0, "", "?", "?", str(hash(data)))

    def to_bytes(self) -> bytes:
        """Format as JSON."""
        return json.dumps(asdict(self), indent=1).encode()

    @property
    def is_here(self) -> bool:
        """Tell whether the holder is a process of this machine, which can be asked about it."""
        return bool(self.machine) and self.machine == _machine() and _started(self.pid) != HIDDEN

    @property
    def is_gone(self) -> bool:
        """Tell whether the lease is free at once: given back, or its holder is seen to be dead."""
        return self.released or (self.is_here and _started(self.pid) != self.started)


class Lease:
    """Hold the right to change an index, from `take` until the end of a `with` block, in which a thread renews it.

    Raises:
        LeaseError: another run holds it (from `Lease.take`), or has taken it over (from `check`).
    """

    def __init__(self, index: str, generation: int, holder: Holder, beat: float = BEAT) -> None:
        self._index, self._generation, self._holder, self._beat = index, generation, holder, beat
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew_all_along, name="lease", daemon=True)

    @classmethod
    def take(cls, index: str, ttl: float = TTL, beat: float = BEAT) -> "Lease":
        """Take the lease of an index, from a dead holder as well; where that is in doubt it takes up to `ttl` seconds.

        Raises:
            LeaseError: a living run holds it.
        """
        while True:
            generation, holder = _newest(index)
            if holder is not None and not holder.is_gone and _is_alive(index, holder, ttl, beat):
                raise LeaseError(
                    f"another run is changing {index}: {holder.name}, since {holder.since}, last heard of at "
                    f"{holder.renewed}; wait for its end. If it is dead, its lease is free at once on the machine that "
                    f"it ran on, elsewhere {ttl:.0f} s after its last renewal"
                )
            lease = cls(index, generation + 1, Holder.this(), beat)
            create_file(_file(index, generation + 1), lease._holder.to_bytes())
            # Another can have been quicker, or have been and gone already: then a higher generation is there.
            if lease._is_mine():
                _remove_older(index, generation)
                return lease

    def check(self) -> None:
        """Make sure, and tell the others, that the lease is still held; before anything is committed.

        Raises:
            LeaseError: another run has it now.
        """
        with self._lock:
            generation, newest = _newest(self._index)
            if generation != self._generation or newest is None or newest.token != self._holder.token:
                taker = "nobody" if newest is None else newest.name
                raise LeaseError(
                    f"this run has lost its lease of {self._index} to {taker}: it was not heard of for too long; "
                    "nothing more is written; run it again"
                )
            self._holder = replace(self._holder, renewed=_now())
            put_file(_file(self._index, self._generation), self._holder.to_bytes())

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        try:
            if self._is_mine():
                put_file(_file(self._index, self._generation), replace(self._holder, released=True).to_bytes())
        except Exception as problem:  # must not hide what the run has to say
            log.warning(
                "the lease of %s could not be given back: %s; the next run waits for its end", self._index, problem
            )

    def _is_mine(self) -> bool:
        generation, holder = _newest(self._index)
        return generation == self._generation and holder is not None and holder.token == self._holder.token

    def _renew_all_along(self) -> None:
        while not self._end.wait(self._beat):
            try:
                self.check()
            except LeaseError:
                return  # the run itself finds that out before it next commits
            except Exception as problem:  # a store that is away for a moment; `check` raises it where it matters
                log.warning("the lease of %s could not be renewed, and is tried again: %s", self._index, problem)


def _is_alive(index: str, holder: Holder, ttl: float, beat: float) -> bool:
    """Tell whether a holder gives a sign of life within `ttl` seconds, by this machine's clock only."""
    if holder.is_here:
        return True
    log.info("waiting up to %.0f s for a sign of life of %s, who holds the lease of %s", ttl, holder.name, index)
    ends = time.monotonic() + ttl
    while time.monotonic() < ends:
        time.sleep(min(beat / 2, ttl))
        newest = _newest(index)[1]
        if newest is None or newest.is_gone:
            return False
        if newest != holder:
            return True
    return False


def _newest(index: str) -> tuple[int, Holder | None]:
    """Find the highest generation and its holder; 0 and None: nobody ever held a lease here."""
    generation = max(_generations(index), default=0)
    if generation == 0:
        return 0, None
    try:
        return generation, Holder.from_bytes(get_file(_file(index, generation)))
    except FileNotFoundError:  # a higher one has come, and this one is cleared away
        return _newest(index)


def _remove_older(index: str, generation: int) -> None:
    for older in _generations(index):
        if older <= generation:
            uri = _file(index, older)
            fs, path = opened(uri)
            try:
                fs.rm_file(path)
            except Exception as problem:  # of credentials without the right to delete; it harms nobody that it stays
                log.warning("%s, of a lease that has ended, could not be removed: %s", uri, problem)


def _generations(index: str) -> list[int]:
    names = [name.removesuffix(".json") for name in names_in(f"{index}/lease")]
    return [int(name) for name in names if name.isdigit()]


def _file(index: str, generation: int) -> str:
    return f"{index}/lease/{generation:08}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return f"user {os.getuid()}"


def _machine() -> str:
    """Identify this boot of this machine and this container's processes; empty where Linux does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Find when a process of this machine was started, in clock ticks since its boot.

    Returns:
        None: it is no more. `HIDDEN`: it is there, but the machine tells nothing of other users' processes.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        try:
            os.kill(pid, 0)  # sends nothing
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return HIDDEN
    return None if state in "ZX" else rest[18]
