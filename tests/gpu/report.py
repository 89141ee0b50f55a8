"""What the script finds: printed and kept as it comes, with a reason in place of what could not be measured."""

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

TIME_IS_UP = 4  # exit status


class UnavailableError(Exception):
    """What should be measured cannot be, here."""


class Line(NamedTuple):
    """One figure, or the reason why there is none; `seconds` after the script began."""

    seconds: float
    section: str
    name: str
    value: float | None
    unit: str
    reason: str | None

    def __str__(self) -> str:
        head = f"{self.seconds:5.0f} s  {self.section:<11} {self.name:<62} "
        if self.value is None:
            return f"{head}skipped: {self.reason}"
        value = f"{self.value:,.0f}" if abs(self.value) >= 1000 else f"{self.value:.4g}"
        return f"{head}{value} {self.unit}".rstrip()


class Report:
    """Collect the figures of all sections until the time is up; the file is whole after each of them.

    Args:
        seconds: until nothing more is begun.
        file: JSON to write; None: none.
    """

    def __init__(self, seconds: float, file: Path | None = None) -> None:
        self._began = time.monotonic()
        self._end = self._began + seconds
        self._file, self._section, self._section_end = file, "", self._end
        self.lines: list[Line] = []
        self.rows: list[str] = []  # of the table, Markdown
        self.machine: dict[str, Any] = {}

    @property
    def left(self) -> float:
        """Seconds until the section's end."""
        return min(self._end, self._section_end) - time.monotonic()

    def figure(self, name: str, value: float, unit: str) -> None:
        """Keep a figure."""
        self._add(name, float(value), unit, None)

    def check(self, name: str, ok: bool, unit: str) -> None:
        """Keep whether something is as it must be; 1 or 0, so that a reader of the file can add them up."""
        self.figure(f"{'OK' if ok else 'WRONG'}: {name}", int(ok), unit)

    def skip(self, name: str, reason: str) -> None:
        """Keep why a figure is missing."""
        self._add(name, None, "", reason)

    def value(self, section: str, name: str) -> float | None:
        """Look up a figure; None: it is missing."""
        found = [line.value for line in self.lines if (line.section, line.name) == (section, name)]
        return found[-1] if found else None

    def best(self, section: str, prefix: str, suffix: str = "") -> float | None:
        """Return the largest figure of those whose names begin and end so; None: there is none."""
        of_section = [line for line in self.lines if line.section == section]
        found = [line for line in of_section if line.name.startswith(prefix) and line.name.endswith(suffix)]
        return max((line.value for line in found if line.value is not None), default=None)

    def run(self, section: str, function: Callable[[], None], seconds: float, least: float = 1.0) -> None:
        """Run a section of at most so many seconds, unless fewer than `least` are left; what fails is a reason."""
        self._section, self._section_end = section, time.monotonic() + seconds
        with self.measuring("all of it"):
            self.need(least)
            function()

    def need(self, seconds: float) -> None:
        """Raise TimeoutError if fewer seconds than this are left of the section."""
        if self.left < seconds:
            raise TimeoutError(f"{max(0.0, self.left):.0f} s are left, it needs {seconds:.0f}")

    @contextmanager
    def measuring(self, name: str) -> Iterator[None]:
        """Run the body; an error of it, or a lack of time (see `need`), is the reason why there is no figure."""
        try:
            yield
        except (UnavailableError, TimeoutError) as error:
            self.skip(name, str(error))
        except ImportError as error:
            self.skip(name, f"{error.name or error} is not installed")
        except Exception as error:  # of a device, a driver, a compiler or Ray: anything
            traceback.print_exc()
            self.skip(name, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def give_up(self) -> None:
        """Say what took too long, and end the process, which nothing else could: the figures are written already."""
        self.skip("the rest of it", "the time is up")
        os._exit(TIME_IS_UP)

    def write(self) -> None:
        """Write the file."""
        if self._file is not None:
            content = {"machine": self.machine, "lines": [line._asdict() for line in self.lines], "table": self.rows}
            self._file.write_text(json.dumps(content, indent=1))

    def _add(self, name: str, value: float | None, unit: str, reason: str | None) -> None:
        self.lines.append(Line(time.monotonic() - self._began, self._section, name, value, unit, reason))
        print(self.lines[-1], flush=True)
        self.write()
