"""Match file names that differ in their Unicode form or in the case of their extension.

macOS, and zip files made there, write "ü" as u with a combining diaeresis (NFD); other systems and most programs write
one character (NFC). Both look the same, but are different file names on Linux and in object stores.
"""

import unicodedata
from collections.abc import Collection, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


def composed(name: str) -> str:
    """Normalise a name to Unicode's composed form, NFC."""
    return unicodedata.normalize("NFC", name)


def name_key(path: str, endings: Collection[str]) -> str:
    """Build a key that all spellings of a path share; case matters, except in known extensions.

    Args:
        path: of a file, with or without its extension.
        endings: extensions, with dot and in lower case, whose case does not matter.
    """
    path = composed(path)
    stem, dot, ending = path.rpartition(".")
    return stem + dot + ending.lower() if dot + ending.lower() in endings else path


def tell_apart(first: str, second: str) -> tuple[str, str]:
    """Format two different names for a message, escaped to ASCII if they would look the same."""
    same = composed(first) == composed(second)
    return (ascii(first), ascii(second)) if same else (first, second)


class NamedValues(Generic[T]):
    """Look up values by names in any Unicode form.

    Args:
        known: the values by name; an exact spelling takes precedence.
    """

    def __init__(self, known: Mapping[str, T]) -> None:
        self._known = known
        self._forms: dict[str, list[T]] = {}
        for name, value in known.items():
            if not name.isascii():
                self._forms.setdefault(composed(name), []).append(value)

    def get(self, name: str) -> T | None:
        """Return a name's value; None if no name, or more than one, differs from it in Unicode form only."""
        for spelling in (name, composed(name)):
            if spelling in self._known:
                return self._known[spelling]
        found = self._forms.get(composed(name), [])
        return found[0] if len(found) == 1 else None
