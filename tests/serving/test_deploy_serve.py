"""`serve deploy serve.yaml` on a cluster whose nodes have the packages only, and replicas that come with the load."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from rsir_core.endpoint.tokens import hash_of
from tests.support.heads import RAY, ROOT, checkout, free_port, guarded, head
from tests.support.serving import ONE, Rows, check_finds_itself, copy_of, publish_by_other_pca, upload

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SERVE = str(Path(RAY).with_name("serve"))
USERS = 16
TOKEN = "right"
ANN = {"Authorization": f"Bearer {TOKEN}"}


class Deployed:
    """What `serve` does and says, as a user with a token calls it."""

    def __init__(self, dashboard: str, environment: dict[str, str]) -> None:
        self._dashboard, self._environment = dashboard, environment

    def __call__(self, *command: str) -> str:
        """A command's output; it must end well."""
        asked = [SERVE, *command, "--address", self._dashboard]
        done = subprocess.run(asked, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def running(self) -> dict[str, int]:
        """Running replicas of each deployment; {} until all is as it should be."""
        application: dict[str, Any] = yaml.safe_load(self("status"))["applications"].get("rsir", {})
        assert application.get("status") not in {"DEPLOY_FAILED", "UNHEALTHY"}, application
        if application.get("status") != "RUNNING":
            return {}
        return {name: d["replica_states"].get("RUNNING", 0) for name, d in application["deployments"].items()}


@contextmanager
def uploading(url: str, row: dict[str, Any]) -> Iterator[list[tuple[int, float, int]]]:
    """Many at once upload a row's image again and again; the answers' versions, distances and dimensions."""
    answers: list[tuple[int, float, int]] = []
    data, over = Path(row["uri"]).read_bytes(), threading.Event()

    def user(_: int) -> None:
        with httpx.Client(base_url=url, timeout=120, headers=ANN) as client:
            while not over.is_set():
                response = upload(client, data, k=1)
                assert response.status_code == 200, response.text
                answer = response.json()
                first = answer["results"][0]["distance"]
                answers.append((answer["version"], first, len(answer["query"]["feature"])))

    with ThreadPoolExecutor(USERS) as pool:
        users = [pool.submit(user, i) for i in range(USERS)]
        try:
            yield answers
        finally:
            over.set()
        for ended in users:
            ended.result()


def test_a_deployed_endpoint_answers_as_the_app_and_grows_with_its_load(
    tmp_path: Path, index: str, client: httpx.Client, stored: Rows
) -> None:
    environment = guarded(tmp_path)
    changing = copy_of(index, tmp_path / "index")
    code = shutil.make_archive(str(tmp_path / "code"), "zip", checkout(tmp_path / "checkout"))
    config = yaml.safe_load((ROOT / "serve.yaml").read_text())
    (application,) = config["applications"]
    application["runtime_env"] = {"working_dir": Path(code).as_uri()}
    (tmp_path / "tokens").write_text(f"ann:{hash_of(TOKEN)}\n")
    application["args"] |= {"index": changing.uri, "partitions": 2, "max_describers": 2, "refresh": 0.2}
    application["args"]["tokens"] = str(tmp_path / "tokens")
    config["http_options"]["port"] = free_port()
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{config['http_options']['port']}"
    with head(tmp_path, environment) as dashboard:
        serve = Deployed(dashboard, environment)
        serve("deploy", str(tmp_path / "serve.yaml"))
        while not (before := serve.running()):
            pass
        assert httpx.post(f"{url}/search", json={"image_id": ONE}, timeout=120).status_code == 401
        assert before == {"ingress": 1, "describer": 1, "searcher-0": 1, "searcher-1": 1}
        with httpx.Client(base_url=url, timeout=120, headers=ANN) as served:
            check_finds_itself(served, stored[3])
            asked = {"image_id": ONE, "k": 5, "classes": ["beach", "river"]}
            assert served.post("/search", json=asked).json() == client.post("/search", json=asked).json()
        old, dimensions = changing.version(), len(stored[0]["feature"])
        with uploading(url, stored[0]) as answers:
            while serve.running()["describer"] < 2:
                pass
            newest = publish_by_other_pca(changing, dimensions=5)  # which both of them must have, before any is asked
            while answers[-1][0] != newest:
                pass
        assert {answer for answer in answers if answer[0] == old} == {(old, 0, dimensions)}
        assert {answer for answer in answers if answer[0] != old} == {(newest, 0, 5)}
        serve("shutdown", "--yes")
