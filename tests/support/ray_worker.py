"""What a raylet of the tests starts in place of Ray's `setup_worker.py`: it asks for a worker that is forked.

It imports nothing else, as it is started for each worker.
"""

import json
import os
import socket
import sys

SOCKET = "RSIR_FORKS"  # environment variable: the path of the socket at which forks are asked for
CONTEXT = "--serialized-runtime-env-context="


def ask(argv: list[str], environment: dict[str, str], folder: str, files: list[int]) -> socket.socket:
    """Ask for a process, see `tests.support.forks`; returns where its pid comes, and once it has ended its status."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(os.environ[SOCKET])
    request = {"argv": argv, "environment": environment, "folder": folder}
    socket.send_fds(connection, [json.dumps(request).encode()], files)
    return connection


if __name__ == "__main__":
    (given,) = [argument for argument in sys.argv if argument.startswith(CONTEXT)] or [CONTEXT + "{}"]
    variables = json.loads(given.removeprefix(CONTEXT)).get("env_vars", {})
    argv = [argument for argument in sys.argv[1:] if argument != given and not argument.startswith("--language=")]
    ask(argv, {**os.environ, **variables}, os.getcwd(), [0, 1, 2]).recv(1)  # noqa: PTH109 -- pathlib is slow to import
