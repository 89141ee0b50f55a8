"""Names of files that are spelt in two ways: in two Unicode forms, or with the ending in small or capital letters.

A Mac, and a zip file made there, writes "ü" as u and a combining diaeresis (NFD), where other systems and most programs
write one character (NFC). Both look the same and are different file names on Linux and in object stores.
"""

import unicodedata
from collections.abc import Collection, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


def composed(name: str) -> str:
    """Write a name in Unicode's composed form, NFC."""
    return unicodedata.normalize("NFC", name)


def name_key(path: str, endings: Collection[str]) -> str:
    """Make a key that all spellings of a path share; the case of its letters matters, except in its ending.

    Args:
        path: of a file, with or without its ending.
        endings: those, with dot and in small letters, whose case does not matter.
    """
    path = composed(path)
    stem, dot, ending = path.rpartition(".")
    return stem + dot + ending.lower() if dot + ending.lower() in endings else path


def tell_apart(first: str, second: str) -> tuple[str, str]:
    """Write two different names for a message; as ASCII with escapes where they would look the same."""
    same = composed(first) == composed(second)
    return (ascii(first), ascii(second)) if same else (first, second)


class NamedValues(Generic[T]):
    """Values by their names, found in any Unicode form.

    Args:
        known: the value of each name; a name in exactly that spelling finds it first.
    """

    def __init__(self, known: Mapping[str, T]) -> None:
        self._known = known
        self._forms: dict[str, list[T]] = {}
        for name, value in known.items():
            if not name.isascii():
                self._forms.setdefault(composed(name), []).append(value)

    def get(self, name: str) -> T | None:
        """Find a name's value; None: no name is spelt so, and none or several differ in Unicode form only."""
        for spelling in (name, composed(name)):
            if spelling in self._known:
                return self._known[spelling]
        found = self._forms.get(composed(name), [])
        return found[0] if len(found) == 1 else None
