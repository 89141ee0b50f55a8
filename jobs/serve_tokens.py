"""Make a token for the endpoint: `python -m jobs.serve_tokens NAME >> FILE`, for `jobs.serve --tokens`."""

import secrets
import sys

from jobs.serving.tokens import hash_of


def main(name: str) -> None:
    """Make a token: it goes to stderr, to be given away; its line for the file to stdout."""
    token = secrets.token_urlsafe(32)
    print(f"{name}:{hash_of(token)}")
    print(f"the token of {name}, shown only now: {token}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2 or ":" in sys.argv[1] or sys.argv[1].startswith(("#", "-")):
        sys.exit("usage: python -m jobs.serve_tokens NAME >> FILE")
    main(sys.argv[1])
