"""How far a job is: a bar on a terminal, else a line every few seconds, both with rate and remaining time."""

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

LINE_INTERVAL: Final = 5.0  # seconds between lines
WINDOW: Final = 300.0  # seconds over which the rate is taken for the remaining time
SETTLED: Final = 1.0  # seconds before a rate is told: workers that began together finish their first at the same moment


class Meter:
    """Estimate the remaining time of a job, and show it while entered.

    Args:
        total: things to do.
        log: where lines go.
        clock: monotonic clock in seconds.
    """

    def __init__(self, total: int, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._log, self._clock = total, log, clock
        self._marks: deque[tuple[float, int]] = deque()  # (time, things done)
        self._printed = math.inf
        self._bar = _Bar(total) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Things per second over the last minutes, since the first were done; 0 until that is `SETTLED` ago.

        What comes before the first, such as loading models, does not count: nothing after it takes as long.
        """
        if not self._marks:
            return 0.0
        (began, before), (now, done) = self._marks[0], self._marks[-1]
        return (done - before) / (now - began) if now - began >= SETTLED else 0.0

    @property
    def time_left(self) -> str:
        """The estimated remaining time in words."""
        return f"{_duration(self.seconds_left)} left" if math.isfinite(self.seconds_left) else "time left not known yet"

    @property
    def seconds_left(self) -> float:
        """Estimated remaining seconds; infinite until the rate is known."""
        left = self._total - self._marks[-1][1] if self._marks else self._total
        if left <= 0:
            return 0.0
        return left / self.rate if self.rate else math.inf

    def mark(self, done: int) -> None:
        """Take note of how many things are done, before a line is made of it."""
        now = self._clock()
        if not self._marks:
            self._printed = now  # the first line comes when there is a rate to tell
        self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[1][0] < now - WINDOW:
            self._marks.popleft()

    def show(self, line: str) -> None:
        """Show how far it is, if it is time to, after `mark`."""
        now, done = self._marks[-1]
        if self._bar and done < self._total:
            self._bar.show(done, line)
        elif now - self._printed >= LINE_INTERVAL or done == self._total:
            self._printed = now
            self._log.info("%s", line)


class _Bar:
    """Show a bar on the terminal, below the lines that are printed meanwhile."""

    def __init__(self, total: int) -> None:
        from rich.console import Console  # noqa: PLC0415 -- on terminals only
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

        self._progress = Progress(
            BarColumn(24), TextColumn("{task.description}"), console=Console(stderr=True), transient=True
        )
        self._task = self._progress.add_task("", total=total)
        self.start, self.stop = self._progress.start, self._progress.stop

    def show(self, done: int, line: str) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done, description=line)


def _duration(seconds: float) -> str:
    """Format a duration in hours, minutes and seconds."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {whole:02} s" if minutes else f"{whole} s"
