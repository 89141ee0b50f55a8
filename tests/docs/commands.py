"""The commands of the documents: found in the pages, and split as bash does it, without running one."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(sh|python)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(python -m (?:jobs|tests)\.[^`]+)`")
# No command is found, so each one ends here: its words go to file descriptor 9, and a record separator after them.
# One printf without a line break is one write, so that those of two commands that run at the same time do not mix.
RECORDER = """
command_not_found_handle() { printf '%s\\0' "$@" $'\\x1e' >&9; }
source() { command_not_found_handle source "$@"; }
cd() { command_not_found_handle cd "$@"; }
PATH=/none
"""


class Block(NamedTuple):
    """A fenced block of commands (sh) or code (python)."""

    page: str
    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in their order."""
    found = []
    for indent, language, text in FENCE.findall(page.read_text("utf-8")):
        lines = [line.removeprefix(indent) for line in text.splitlines(keepends=True)]
        found.append(Block(str(page.relative_to(ROOT)), language, "".join(lines)))
    return found


def inline_commands(page: Path) -> list[str]:
    """The commands between backticks in a page's text, but for those with a placeholder in them."""
    found = [" ".join(text.split()) for text in INLINE.findall(FENCE.sub("", page.read_text("utf-8")))]
    return [text for text in found if not re.search(r"NAME|[…\[\]]", text)]


def commands_in(text: str, folder: Path) -> list[list[str]]:
    """The words of each command that bash would run; loops are run, redirections write into the folder."""
    record = folder / "commands"
    with record.open("wb") as out:
        script = f"exec 9>&{out.fileno()}\n{RECORDER}{text}\nwait\n"
        done = subprocess.run(
            ["bash", "-c", script], cwd=folder, pass_fds=[out.fileno()], capture_output=True, text=True, check=False
        )
    assert not done.stderr, f"{done.stderr}\nin\n{text}"
    return [words.split("\0")[:-1] for words in record.read_text("utf-8").split("\x1e\0") if words]
