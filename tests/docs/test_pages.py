"""The pages are followed: their commands and code are run in their order, on a small archive, index and endpoint.

The first tutorial draws the archive, trains the bundle and makes the index that all other pages go on with. Commands
that need a cluster, a cloud or hours are not run; `test_commands` has looked at their options.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import nbformat
import pytest
from nbclient import NotebookClient

from jobs.serving.serve import free_port
from tests.docs.commands import PAGES, ROOT, blocks_of
from tests.support.serving import local_app, serving

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

NOTEBOOK: Final = ROOT / "docs" / "tutorials" / "notebook.ipynb"
FIRST: Final = ROOT / "docs" / "tutorials" / "first-archive.md"
NOT_RUN: Final = {  # commands that match: why
    r"make|source|pip": "set up a whole environment, or run this suite",
    r"kubectl|docker|ray|serve|aws|export|git archive|head=\$\(kubectl": "need a cluster, a cloud or a clone",
    r".*s3://": "needs a bucket; tests/indexing/test_store.py has one",
    r"python -m tests\.": "take minutes to hours; the suite runs benchmarks at a tiny size",
    r"python -m jobs\.(finetune_detector|convert_boxes)": "need boxes; tests/training and tests/boxes draw some",
    r"python -m jobs\.finetune_classifier (?!--archive images|--emb)": "train for long; the first tutorial does",
    r".*(--seeds|new-models|new-index|trial)": "need models that were trained for hours",
    r"for |done|.*\$seed": "loops repeat what stands above them for hours",
    r".*planetarycomputer": "needs a network; tests/storage/test_signing.py has a store that wants signatures",
    r".*/token": "needs an endpoint with tokens; tests/endpoint/test_tokens.py has one",
}
PAGES_NOT_RUN: Final = {  # folders and pages: why
    "results": "need data sets and hours",
    "gpu.md": "measures a GPU for minutes; tests/gpu rehearses it",
    "cluster.md": "all of its commands need a cluster",
    "compose.md": "all of its commands need Docker",
    "storage.md": "all of its commands need a bucket or a package index",
}
SERVERS: Final = {"rustac": "7822", "uvicorn": "9000"}  # with their ports in the pages
PORTS: Final = ("7822", "9000")
SMALL: Final = {"/my/images": "images", "/my/queries": "images/harbor"}  # in place of the reader's own
RUN: Final = [p for p in PAGES if p != FIRST and not {p.parent.name, p.name} & set(PAGES_NOT_RUN) and blocks_of(p)]


def logical_lines(text: str) -> Iterator[str]:
    """The commands of a block, one each, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


class Reader:
    """Follows pages in a folder; its one process for jobs ends with the stack, endpoints with their page."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack, self._page = folder, stack, ExitStack()
        self._log = folder / "log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
        self._environment = environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self._jobs: subprocess.Popen[str] | None = None
        self._status = -1
        self._url = ""
        self._ports = {port: str(free_port("127.0.0.1", 0)) for port in PORTS}

    def follow(self, page: Path, really_serve: bool = False) -> list[str]:
        """Run the page; the commands and code that were run, each of which has ended well."""
        names, done = dict[str, object](), list[str]()
        with ExitStack() as self._page:
            self._url = ""
            for block in blocks_of(page):
                if block.language == "python":
                    exec(compile(self._addressed(block.text), block.page, "exec"), names)
                    done.append(block.text)
                    continue
                for line in logical_lines(block.text):
                    if not any(re.match(pattern, line) for pattern in NOT_RUN):
                        self._run(re.sub("|".join(SMALL), lambda given: SMALL[given[0]], line), really_serve)
                        done.append(line)
        return done

    def _run(self, line: str, really_serve: bool) -> None:
        line = re.sub("|".join(PORTS), lambda port: self._ports[port[0]], line)
        words = shlex.split(line, comments=True)
        words = ["python", "-m", "jobs.rsir", *words[1:]] if words[0] == "rsir" else words
        if words[0] in SERVERS:
            self._start_server(words, self._ports[SERVERS[words[0]]])
            return
        if words[:3] == ["python", "-m", "jobs.serve"]:
            self._serve(words[words.index("--index") + 1], words[2:] if really_serve else None)
        elif words[:2] == ["python", "-m"] and words[2].startswith("jobs.") and not re.search(r"[|<>]", line):
            assert self._job(words[2:]) == 0, f"{line}\n{self._log.read_text()[-3000:]}"
        else:
            self._shell(line)

    def _shell(self, line: str) -> None:
        line = re.sub(r"^curl ", "curl --fail-with-body --silent --show-error ", self._addressed(line))
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"

    def _job(self, words: list[str]) -> int:
        if self._jobs is None:
            self._jobs = self._start_jobs()
        assert self._jobs.stdin is not None
        self._jobs.stdin.write(json.dumps(words) + "\n")
        self._jobs.stdin.flush()
        return int(os.read(self._status, 10) or -1)

    def _start_jobs(self) -> subprocess.Popen[str]:
        self._status, theirs = os.pipe()
        self._stack.callback(os.close, self._status)
        log = self._stack.enter_context(self._log.open("w"))
        process = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.docs.job_server", str(theirs)],
                cwd=self.folder, env=self._environment, pass_fds=[theirs], stdin=subprocess.PIPE, stdout=log,
                stderr=log, text=True,
            )
        )  # fmt: skip
        os.close(theirs)
        return process

    def _serve(self, index: str, words: list[str] | None) -> None:
        """Serve an index: by the command's words as they are, or, without Ray, by the same app in this process."""
        if words is None:
            self._url = self._page.enter_context(serving(local_app(str(self.folder / index))))
            return
        port = free_port("127.0.0.1", 0)
        command = [sys.executable, "-m", *words, "--port", str(port)]
        process = self._page.enter_context(
            subprocess.Popen(command, cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, text=True)
        )
        self._page.callback(process.terminate)
        assert process.stdout is not None
        assert "are searchable at" in process.stdout.readline()
        self._url = f"http://127.0.0.1:{port}"

    def _addressed(self, text: str) -> str:
        """Ask the endpoint where it really is; one of the index, unless the page has started another."""
        if "127.0.0.1:8000" in text and not self._url:
            self._serve("index", None)
        text = text.replace("http://127.0.0.1:8000", self._url)
        return re.sub("|".join(PORTS), lambda port: self._ports[port[0]], text)

    def _start_server(self, words: list[str], port: str) -> None:
        """Start a server that is not ours, until the page ends."""
        more = ["--addr", f"127.0.0.1:{port}"] if words[0] == "rustac" else []
        log = self._page.enter_context((self.folder / f"{words[0]}.log").open("w"))
        process = self._page.enter_context(
            subprocess.Popen([*words, *more], cwd=self.folder, env=self._environment, stdout=log, stderr=log)
        )
        self._page.callback(process.terminate)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port))):
                return
            time.sleep(0.1)
        raise TimeoutError(f"{words} does not answer: {(self.folder / f'{words[0]}.log').read_text()}")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader who has followed the first tutorial, with `jobs.serve` on a real Ray Serve."""
    folder = tmp_path_factory.mktemp("docs")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        reader = Reader(folder, stack)
        reader.follow(FIRST, really_serve=True)
        for name in ("query.jpg", "window.png"):
            shutil.copy(folder / "images" / "harbor" / "harbor001.jpg", folder / name)
        yield reader


def test_the_first_tutorial_leaves_what_it_promises(reader: Reader) -> None:
    assert {path.name for path in reader.folder.iterdir()} >= {"images", "models", "index", "report"}
    assert (reader.folder / "report" / "report.html").exists()


def test_the_notebook_can_be_run(reader: Reader) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    assert NOTEBOOK.stat().st_size < 200_000 and not any(cell.get("outputs") for cell in notebook.cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(reader.folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert sum("data:image/jpeg" in page for page in pages) == 4
    assert (reader.folder / "rows.parquet").exists()


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_can_be_followed(page: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reader.folder)
    assert reader.follow(page), "nothing of it is run; name it in PAGES_NOT_RUN"
