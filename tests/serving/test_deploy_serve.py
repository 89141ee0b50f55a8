"""`serve deploy serve.yaml` on a cluster whose nodes have the packages only, and replicas that come with the load."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

from rsir_core.endpoint.tokens import hash_of
from tests.support.heads import RAY, ROOT, checkout, free_port, guarded, head
from tests.support.serving import ONE, Rows, check_finds_itself, copy_of, publish_by_other_pca, upload

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SERVE = str(Path(RAY).with_name("serve"))
USERS = 40  # more than fill the calls that one describer is asked to have under way
TOKEN = "right"
ANN = {"Authorization": f"Bearer {TOKEN}"}


class Deployed:
    """What `serve` does and the head says, as a user with a token asks them."""

    def __init__(self, dashboard: str, environment: dict[str, str]) -> None:
        self._dashboard, self._environment = dashboard, environment
        token = Path(environment["HOME"], ".ray", "auth_token").read_text().strip()
        self._head = httpx.Client(base_url=dashboard, timeout=60, headers={"Authorization": f"Bearer {token}"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._head.close()

    def __call__(self, *command: str) -> None:
        """Run a command, which must end well."""
        asked = [SERVE, *command, "--address", self._dashboard]
        done = subprocess.run(asked, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def running(self) -> dict[str, int]:
        """Running replicas of each deployment; {} until all is as it should be."""
        answer = self._head.get("/api/serve/applications/")  # what `serve status` asks
        application: dict[str, Any] = answer.raise_for_status().json()["applications"].get("rsir", {})
        assert application.get("status") not in {"DEPLOY_FAILED", "UNHEALTHY"}, application
        if application.get("status") != "RUNNING":
            return {}
        replicas = {name: deployment["replicas"] for name, deployment in application["deployments"].items()}
        return {name: sum(one["state"] == "RUNNING" for one in there) for name, there in replicas.items()}

    def wait_for(self, ready: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Ask for the replicas until they are as wanted."""
        while not ready(running := self.running()):
            time.sleep(0.2)
        return running


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
    with head(tmp_path, environment) as dashboard, Deployed(dashboard, environment) as serve:
        serve("deploy", str(tmp_path / "serve.yaml"))
        before = serve.wait_for(bool)
        assert httpx.post(f"{url}/search", json={"image_id": ONE}, timeout=120).status_code == 401
        assert before == {"ingress": 1, "describer": 1, "searcher-0": 1, "searcher-1": 1}
        with httpx.Client(base_url=url, timeout=120, headers=ANN) as served:
            check_finds_itself(served, stored[3])
            asked = {"image_id": ONE, "k": 5, "classes": ["beach", "river"]}
            assert served.post("/search", json=asked).json() == client.post("/search", json=asked).json()
        old, dimensions = changing.version(), len(stored[0]["feature"])
        with uploading(url, stored[0]) as answers:
            serve.wait_for(lambda running: running.get("describer", 0) > 1)
            newest = publish_by_other_pca(changing, dimensions=5)  # which both of them must have, before any is asked
            while answers[-1][0] != newest:
                pass
        assert {answer for answer in answers if answer[0] == old} == {(old, 0, dimensions)}
        assert {answer for answer in answers if answer[0] != old} == {(newest, 0, 5)}
        serve("shutdown", "--yes")
