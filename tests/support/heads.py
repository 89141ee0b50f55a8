"""A Ray head as on a cluster, `ray start --head`: it asks for a token and knows nothing of this session's Ray."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(address: str) -> bool:
    """Whether the job server is up; it may ask for a token."""
    try:
        return httpx.get(f"{address}/api/version", timeout=5).status_code in {200, 401}
    except httpx.TransportError:
        return False


@contextmanager
def head(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """A Ray head on loopback, in the foreground of a process of ours; its dashboard's address."""
    dashboard, port, agent = free_port(), free_port(), free_port()
    # Short, for Ray's sockets; and no other driver finds this head by itself.
    temporary = tempfile.mkdtemp(prefix="rsir")
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1", f"--port={port}",
               f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--disable-usage-stats",
               f"--dashboard-agent-listen-port={agent}",  # its default is taken by the session's other Ray
               f"--temp-dir={temporary}"]  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    # By default it waits half a minute for its last workers to go, which they do not without a second node.
    at_once = environment | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=at_once, stdout=log, stderr=log)
        try:
            while not answers(address):
                assert process.poll() is None, (folder / "head.log").read_text()
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(60)
            shutil.rmtree(temporary, ignore_errors=True)


def guarded(folder: Path) -> dict[str, str]:
    """The environment of a user with a token, whose home is in this folder; the head of it asks strangers for one."""
    home = folder / "home"
    home.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    environment = {**clean, "RAY_AUTH_MODE": "token", "HOME": str(home), "PATH": path}
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    return environment


def checkout(folder: Path) -> Path:
    """As a user's: code only."""
    for name in ("jobs", "rsir_core"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
