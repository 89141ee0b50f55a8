"""Reading functions on which some names act as decoders do that hang, crash, or ask for all memory."""

import ctypes
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from rsir_core.errors import FailureKind, ImageError
from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.sandbox import JsonObject
from rsir_core.imagery.tile_survey import survey_scene

KINDS: dict[str, FailureKind] = {
    "hangs": "timeout",
    "spins": "timeout",
    "segfaults": "crash",
    "exits": "crash",
    "needs_100_gb": "memory",
    "is_killed": "memory",
}


def read_poisoned(uri: str, max_pixels: int) -> Picture:
    """As `read_picture`, but for names of poison."""
    swallow(uri)
    if Path(uri).stem.startswith("refused"):
        raise ImageError(f"{uri}: the store refuses access", "read", "denied")
    return read_picture(uri, max_pixels)


def look_into_poisoned(uri: str, *asked: Any) -> JsonObject:
    """As `survey_scene`, but for names of poison."""
    swallow(uri)
    return survey_scene(uri, *asked)


def swallow(uri: str) -> None:
    """Let the poison work."""
    match Path(uri).stem:
        case "hangs":
            time.sleep(1_000)
        case "spins":  # in C, and without letting another thread of Python run
            re.match(r"(a+)+$", "a" * 40 + "b")
        case "segfaults":
            ctypes.string_at(0)
        case "exits":
            os._exit(3)
        case "needs_100_gb":
            bytearray(100 * 1024**3)
        case "is_killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "is_killed_once" if not (mark := Path(uri).with_suffix(".mark")).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        case "has_a_bug":
            raise LookupError("a bug of ours")
