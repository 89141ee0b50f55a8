"""The command `rsir`: every job by a short name, `rsir index …` for `python -m jobs.index …`."""

import difflib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final

from jobs import serve_tokens
from jobs.demo import __main__ as demo
from jobs.reference import JOBS

Command = Callable[[Sequence[str], str], int]  # of the options and the command as typed; returns the exit code

NAMES: Final = {  # as they are typed, in the order of the overview, and the job's name
    "demo": "demo",
    "boxes convert": "convert_boxes",
    "boxes propose": "propose_boxes",
    "train detector": "finetune_detector",
    "train classifier": "finetune_classifier",
    "index": "index",
    "evaluate": "evaluate",
    "search": "search",
    "query": "query",
    "serve": "serve",
    "labels": "labels",
    "changes": "changes",
    "doctor": "doctor",
}
TOKEN: Final = "token"  # noqa: S105 -- a command
OVERVIEW: Final = """usage: rsir COMMAND [--key value …]

{commands}

rsir COMMAND --help explains the options. Each command is also python -m jobs.NAME, which is what `ray job submit` runs.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, see `Job.main`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["--version"], ["-V"]):
        print(f"rsir {version('rsir')}")
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview(), end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    for count in (2, 1):
        typed = " ".join(words[:count])
        if (command := _command(typed)) is not None:
            return command(words[count:], f"rsir {typed}")
    return _unknown(words)


def overview() -> str:
    """List the commands with what they are for."""
    purposes = {typed: JOBS[name].purpose for typed, name in NAMES.items()}
    purposes[TOKEN] = "Make a token for the endpoint; its line for the file of serve --tokens goes to stdout."
    width = max(map(len, purposes))
    return OVERVIEW.format(commands="\n".join(f"  {typed:<{width}}  {why}" for typed, why in purposes.items()))


def _command(typed: str) -> Command | None:
    special: dict[str, Command] = {TOKEN: serve_tokens.main, "demo": demo.main, "search": _search}
    if typed in special:
        return special[typed]
    return JOBS[NAMES[typed]].main if typed in NAMES else None


def _search(options: Sequence[str], prog: str) -> int:
    """Take the image as the first word; then the options, as every job does."""
    if options and not options[0].startswith("-"):
        options = ["--image", *options]
    return JOBS["search"].main(options, prog)


def _unknown(words: Sequence[str]) -> int:
    known = [*NAMES, TOKEN]
    begun = [name for name in known if name.startswith(f"{words[0]} ")]
    near = (
        begun
        or difflib.get_close_matches(" ".join(words[:2]), known, 1)
        or difflib.get_close_matches(words[0], known, 1)
    )
    remedy = f"say {' or '.join(f'rsir {name}' for name in near)}" if near else "rsir --help lists them"
    print(f"rsir: no command {words[0]!r}; {remedy}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
