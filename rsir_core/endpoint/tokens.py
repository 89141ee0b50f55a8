"""Bearer tokens, of which only hashes are kept; `guard` refuses requests without one."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rsir_core.errors import ConfigError

NAME: Final = re.compile(r"[^:#\s-][^:#\s]*")
LINE: Final = re.compile(r"([^:#]+):([0-9a-f]{64})")


class Tokens:
    """Hold tokens by their SHA-256; they are random and long, so that no slow hash is needed.

    Args:
        hashes: of each token, in hexadecimal, by the name of whom it was given to.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)

    @classmethod
    def read(cls, file: str) -> "Tokens":
        """Parse lines of `name:hash`; empty ones and those that begin with # are passed over.

        Raises:
            ConfigError: it cannot be read, another line is in it, or none.
        """
        try:
            lines = Path(file).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--tokens {file}: cannot be read: {error}") from error
        hashes = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            found = LINE.fullmatch(line.strip())
            if found is None:  # not quoted here: it may be a token
                raise ConfigError(
                    f"--tokens {file}: line {number} is not `name:sha256`; make it with jobs.serve_tokens"
                )
            if found[1] in hashes:
                raise ConfigError(
                    f"--tokens {file}: line {number} gives {found[1]} a second token; give it another name"
                )
            hashes[found[1]] = found[2]
        if not hashes:
            raise ConfigError(f"--tokens {file}: no token; make one with python -m jobs.serve_tokens NAME >> {file}")
        return cls(hashes)

    def name_of(self, token: str) -> str | None:
        """Find whose token it is; None: nobody's. Takes the same time for all."""
        given = hash_of(token)
        names = [name for name, known in self._hashes.items() if hmac.compare_digest(given, known)]
        return names[0] if names else None


def hash_of(token: str) -> str:
    """Hash a token; only this is kept of it."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
