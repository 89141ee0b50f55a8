"""Sign URLs when they are opened, for archives that give out signatures which expire.

A URI `planetary-computer+https://…` names the signer and the unsigned URL. A signed URL is never stored, and no message
contains one.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from rsir_core.errors import StorageError

_URI: Final = re.compile(r"(?P<signer>[a-z][a-z-]*)\+(?P<url>https?://.*)", re.DOTALL)
_QUERY: Final = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>)]*")


class SignedUri(NamedTuple):
    """Name a URL that must be signed, and by which signer."""

    signer: str
    url: str

    @classmethod
    def parse(cls, uri: str) -> "SignedUri | None":
        """Parse a URI; None for those that are opened as they are."""
        found = _URI.fullmatch(uri)
        return None if found is None or found["signer"] not in SIGNERS else cls(found["signer"], found["url"])

    def __str__(self) -> str:
        return f"{self.signer}+{self.url}"

    def sign(self, renew: bool = False) -> str:
        """Return the signed URL; signatures are kept until shortly before they expire.

        Args:
            renew: whether to ask for another one even so, because the store refused the last.

        Raises:
            StorageError: the signer's package is not installed.
        """
        return SIGNERS[self.signer](self.url, renew)


def without_signatures(text: str) -> str:
    """Remove the query of each URL in a message."""
    return _QUERY.sub(r"\1", text)


def is_denied(error: BaseException | None) -> bool:
    """Tell whether a store refused access; fsspec raises FileNotFoundError from the HTTP status 401 or 403."""
    while error is not None:
        if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
            return True
        error = error.__cause__
    return False


def _planetary_computer(url: str, renew: bool) -> str:
    try:
        from planetary_computer import sas  # noqa: PLC0415 -- of an extra
    except ImportError as error:
        what = "signing by planetary-computer needs a package that is missing: pip install 'rsir[planetary-computer]'"
        raise StorageError(what) from error
    if renew:
        sas.TOKEN_CACHE.clear()
    signed: str = sas.sign_url(url)
    return signed


SIGNERS: Final[dict[str, Callable[[str, bool], str]]] = {"planetary-computer": _planetary_computer}
