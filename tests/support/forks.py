"""Ray's workers and the project's commands, forked from one process that has imported what they import.

A new interpreter takes eight seconds of a core to import torch, torchvision and the rest, and the tests start hundreds
of them. What is forked is a process of its own all the same, with its own environment, output and end.

`python -m tests.support.forks` is that parent. It has one thread, so that a fork lacks none.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import rsir_core
from rsir_core.models.detector import offline_ultralytics
from tests.support.network import block_network
from tests.support.ray_worker import SOCKET, ask

ROOT: Final = Path(__file__).parents[2]
LARGEST: Final = 1_000_000  # bytes of a request
# Not Ray, which reads the environment as it is imported: each fork has its own.
PRELOADED: Final = ("aiohttp", "fastapi", "grpc", "pandas", "s3fs", "sklearn.cluster", "torchvision")


class Fork:
    """A process that was asked for; it is no child of this one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = int(connection.recv(LARGEST))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._status(socket.MSG_DONTWAIT)

    def wait(self) -> int:
        """Return its exit status once it has ended."""
        status = self._status(0)
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _status(self, flags: int) -> int | None:
        if self.returncode is None:
            with suppress(BlockingIOError):
                self.returncode = int(self._connection.recv(LARGEST, flags))
                self._connection.close()
        return self.returncode


def run(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with these arguments, and return what `subprocess.run` would with its output captured."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        status = start(argv, out, error, environment).wait()
        out.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess([*argv], status, out.read().decode(), error.read().decode())


def start(argv: Sequence[str], out: Any, error: Any, environment: Mapping[str, str] | None = None) -> Fork:
    """Start `python -m` with these arguments in a session of its own.

    Args:
        argv: a module, and what it is given.
        out: the file that is its stdout.
        error: the file that is its stderr.
        environment: of the process; None: this one's.
    """
    with open(os.devnull) as nothing:  # noqa: PTH123 -- as stdin
        files = [file.fileno() for file in (nothing, out, error)]
        return Fork(ask(["-m", *argv], dict(environment or os.environ), str(ROOT), files))


@contextmanager
def parent() -> Iterator[None]:
    """Run the parent while the body runs; `SOCKET` says where."""
    with tempfile.TemporaryDirectory(prefix="rsir-forks-") as folder:
        os.environ[SOCKET] = f"{folder}/socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(os.environ[SOCKET])
            listener.listen(64)  # who asks before it is ready waits
            command = [sys.executable, "-m", "tests.support.forks", str(listener.fileno())]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, pass_fds=[listener.fileno()])
        with process:  # which ends with its stdin
            assert process.stdout is not None and process.stdout.readline(), "the parent of all forks did not start"
            yield
        del os.environ[SOCKET]


def main() -> None:
    """Import, fork whenever somebody asks, and be what was asked for in each fork."""
    block_network()
    modules = [module.name for module in pkgutil.walk_packages(rsir_core.__path__, "rsir_core.")]
    with offline_ultralytics():  # which some of them import
        for name in (*PRELOADED, *modules):
            importlib.import_module(name)
    assert "ray" not in sys.modules
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    assert len([name for name in threads if name != "jemalloc_bg_thd"]) == 1, threads  # that one survives a fork
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its stdin
    os.write(1, b"ready\n")
    if (request := _serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        _become(request)


def _serve(listener: socket.socket) -> dict[str, Any] | None:
    """Return what a fork is to be, in the fork; None, in the parent, at the end."""
    ready = selectors.DefaultSelector()
    ready.register(0, selectors.EVENT_READ)
    ready.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj == 0:
                return None
            if key.fileobj != listener:
                _report(*key.data)
                ready.unregister(key.fileobj)
                os.close(key.fd)
                continue
            connection, _ = listener.accept()
            message, files, _, _ = socket.recv_fds(connection, LARGEST, 3)
            if (pid := os.fork()) == 0:
                _let_go(ready, listener, connection)
                for descriptor, file in enumerate(files):
                    os.dup2(file, descriptor)
                    os.close(file)
                request: dict[str, Any] = json.loads(message)
                return request
            for file in files:
                os.close(file)
            with suppress(OSError):
                connection.send(str(pid).encode())
            ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))


def _let_go(ready: selectors.BaseSelector, *sockets: socket.socket) -> None:
    """Close in a fork what only the parent needs."""
    for key in list(ready.get_map().values()):
        if key.data is not None:
            os.close(key.fd)
            key.data[1].close()
    ready.close()
    for one in sockets:
        one.close()


def _report(pid: int, connection: socket.socket) -> None:
    """Tell who asked for a fork how it has ended."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError), connection:
        connection.send(str(status).encode())


def _become(request: dict[str, Any]) -> None:
    """Be the process of a command line."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    module, *arguments = request["argv"]
    sys.path[0] = ""
    if module == "-m":
        name, *arguments = arguments
        sys.argv = [name, *arguments]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [module, *arguments]
        sys.path[0] = str(Path(module).parent)
        runpy.run_path(module, run_name="__main__")


if __name__ == "__main__":
    main()
