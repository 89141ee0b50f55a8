"""Files below a folder, found by what lists and annotations call them."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from rsir_core.archive.file_names import name_key, tell_apart
from rsir_core.archive.listing import is_hidden
from rsir_core.errors import ConfigError, LabelError


class NamedFiles:
    """Find files below a folder by the names that lists and annotations give them.

    Attributes:
        folder: where they are.
        names: their paths below it, with /, sorted; hidden ones are left out, as in the index.
    """

    def __init__(self, folder: str, endings: Iterable[str]) -> None:
        """List the folder.

        Raises:
            ConfigError: it is none, or has no file with one of the endings.
        """
        self.folder = Path(folder)
        self._endings = frozenset(endings)
        files = (p for p in self.folder.rglob("*") if p.suffix.lower() in self._endings and p.is_file())
        names = (p.relative_to(folder).as_posix() for p in files)
        self.names = sorted(name for name in names if not is_hidden(name))
        if not self.names:
            raise ConfigError(
                f"there is no file of {', '.join(sorted(self._endings))} below {folder}; give another folder"
            )
        self._by_path: dict[str, list[str]] = defaultdict(list)
        self._by_last: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            for path in (name, stem(name)):
                self._by_path[self._key(path)].append(name)
                self._by_last[self._key(path.rpartition("/")[2])].append(name)

    def path(self, name: str) -> Path:
        """Say where the file of that name is."""
        return self.folder / name

    def find(self, entry: str, where: str) -> str | None:
        """Find the name of `a/b.jpg` or `a/b`: its longest end that is a path below the folder, else the one called so.

        Where no name is spelt exactly so, its Unicode form and the case of its ending do not matter.

        Raises:
            LabelError: several files are called so.
        """
        parts = entry.replace("\\", "/").split("/")
        for start in range(len(parts)):
            path = "/".join(parts[start:])
            if found := self._by_path.get(self._key(path)):
                return self._only(found, path, where)
        found = self.called(entry)
        return self._only(found, parts[-1], where) if found else None

    def called(self, entry: str) -> list[str]:
        """List the names of all files whose last part is that of the entry, in whichever folder."""
        return self._by_last.get(self._key(entry.replace("\\", "/").rpartition("/")[2]), [])

    def _only(self, found: list[str], entry: str, where: str) -> str:
        """Choose the name that is spelt exactly like the entry, where several match."""
        exact = [name for name in found if entry in (name, stem(name))] if len(found) > 1 else found
        if len(exact) == 1:
            return exact[0]
        first, second = tell_apart(*found[:2])
        raise LabelError(
            f"{where}: {entry} may be {first} or {second} of {self.folder}; write the whole path of one of them"
        )

    def _key(self, path: str) -> str:
        return name_key(path, self._endings)


def stem(name: str) -> str:
    """Take the ending off a path."""
    return name.removesuffix(Path(name).suffix)


def is_hidden_entry(entry: str, folder: Path) -> bool:
    """Say whether a list's entry is a hidden file, as the index leaves it out.

    Args:
        entry: a path as it is written.
        folder: whose own name, and those of folders around it, do not matter.
    """
    path = os.path.normpath(entry.replace("\\", "/"))
    if path.startswith(("/", "..")):
        inside = Path(os.path.abspath(path)).is_relative_to(folder.absolute())  # noqa: PTH100 -- `resolve` follows links
        path = os.path.relpath(path, folder) if inside else path.rpartition("/")[2]
    return is_hidden(path)
