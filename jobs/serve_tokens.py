"""Make a token for the endpoint: `python -m jobs.serve_tokens NAME >> FILE`, for `jobs.serve --tokens`."""

import argparse
import secrets
import sys
from collections.abc import Sequence

from rsir_core.endpoint.tokens import NAME, hash_of


def main(argv: Sequence[str] | None = None, prog: str = "python -m jobs.serve_tokens") -> int:
    """Make a token: it goes to stderr, to be given away; its line for the file to stdout."""
    parser = argparse.ArgumentParser(prog, description="Make a token for the endpoint; its line goes to a file.")
    parser.add_argument("name", metavar="NAME", type=name_for, help="of whom it is given to; once per file")
    name = parser.parse_args(argv).name
    token = secrets.token_urlsafe(32)
    print(f"{name}:{hash_of(token)}")
    print(f"the token of {name}, shown only now: {token}", file=sys.stderr)
    return 0


def name_for(text: str) -> str:
    """Return the name as the file may have it.

    Raises:
        ArgumentTypeError: it has a space, a colon or a #, or begins with a hyphen.
    """
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a name has no space, colon or #, and begins with no hyphen")
    return text


if __name__ == "__main__":
    sys.exit(main())
