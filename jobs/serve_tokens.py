"""Make a token for the endpoint: `python -m jobs.serve_tokens NAME >> FILE`, for `jobs.serve --tokens`."""

import argparse
import secrets
import sys

from rsir_core.endpoint.tokens import NAME, hash_of


def main(name: str) -> None:
    """Make a token: it goes to stderr, to be given away; its line for the file to stdout."""
    token = secrets.token_urlsafe(32)
    print(f"{name}:{hash_of(token)}")
    print(f"the token of {name}, shown only now: {token}", file=sys.stderr)


def name_for(text: str) -> str:
    """Return the name as the file may have it.

    Raises:
        ArgumentTypeError: it has a space, a colon or a #, or begins with a hyphen.
    """
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a name has no space, colon or #, and begins with no hyphen")
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m jobs.serve_tokens", description=__doc__)
    parser.add_argument("name", metavar="NAME", type=name_for, help="of whom it is given to; once per file")
    main(parser.parse_args().name)
