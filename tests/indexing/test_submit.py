"""The index job as a cluster runs it: `ray job submit` against a head that was started with `ray start --head`."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from rsir_core.index.index import Index
from tests.indexing.test_index import draw
from tests.support.heads import RAY, ROOT, checkout, guarded, head
from tests.support.models import write_bundle

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def test_runs_through_ray_job_submit(tmp_path: Path) -> None:
    environment = guarded(tmp_path)
    draw(tmp_path / "archive", 0, 8)
    write_bundle(tmp_path / "models")
    code = checkout(tmp_path / "checkout")
    options = {"archive": tmp_path / "archive", "models": tmp_path / "models", "index": tmp_path / "index",
               "components": 3, "actors": 1}  # fmt: skip
    job = ["python", "-m", "jobs.index", *(f"--{k}={v}" for k, v in options.items()), "--json"]
    with head(tmp_path, environment) as address:
        submit = [RAY, "job", "submit", "--address", address, "--working-dir", str(code), "--runtime-env",
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
