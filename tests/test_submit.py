"""The index job as a cluster runs it: `ray job submit` against a head that was started with `ray start --head`."""

import json
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
import pytest

from rsir_core.table import Index
from tests.models import write_bundle
from tests.test_index import draw

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[1]
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
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while not answers(address):
                assert process.poll() is None, (folder / "head.log").read_text()
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(60)
            shutil.rmtree(temporary, ignore_errors=True)


def test_runs_through_ray_job_submit(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    environment = {**clean, "RAY_AUTH_MODE": "token", "HOME": str(tmp_path / "home"), "PATH": path}
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    draw(tmp_path / "archive", 0, 8)
    write_bundle(tmp_path / "models")
    checkout = tmp_path / "checkout"  # as a user's: code only
    for name in ("jobs", "rsir_core"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = {"archive": tmp_path / "archive", "models": tmp_path / "models", "index": tmp_path / "index",
               "components": 3, "actors": 1}  # fmt: skip
    job = ["python", "-m", "jobs.index", *(f"--{k}={v}" for k, v in options.items()), "--json"]
    with head(tmp_path, environment) as address:
        submit = [RAY, "job", "submit", "--address", address, "--working-dir", str(checkout), "--runtime-env",
                  str(ROOT / "runtime_env.yaml"), "--", *job]  # fmt: skip
        done = subprocess.run(submit, env=environment, capture_output=True, text=True, check=False)
        while "No available agent" in done.stderr:  # the head's server is up before what starts its jobs
            done = subprocess.run(submit, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        refused = httpx.get(f"{address}/api/jobs/")
        assert refused.status_code == 401  # the head asks strangers for a token
    summary = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"listed"')))
    assert (summary["listed"], summary["described"], summary["rows"]) == (8, 8, 8)
    assert len(Index(str(tmp_path / "index")).features()) == 8
