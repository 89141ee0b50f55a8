"""The whole way, by the commands that a user would type: draw, fine-tune, index, evaluate, serve, query, picture."""

import hashlib
import json
import logging
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from rich.console import Console

from jobs.command import Summary
from jobs.demo.options import DemoConfig
from jobs.demo.picture import Answer, draw_answers
from jobs.demo.scenes import write_archive, write_boxes
from rsir_core import schemas
from rsir_core.archive.labels import LabelledImage, read_split
from rsir_core.errors import RsirError
from rsir_core.extras import require
from rsir_core.index.index import Index
from rsir_core.storage.filesystem import file_system
from rsir_core.storage.reading import read_file

PER_CLASS: Final = 30
WITH_BOXES: Final = 240  # scenes for the detector
DETECTOR: Final = {  # learns something from nothing within three minutes on two cores
    "model": "yolov5n",
    "image_size": 160,
    "batch_size": 8,
    "min_score": 0.1,
    "threads": 1,  # two wait for each other where the machine has other work: 1 step then took 35 s, not 2
}
QUERIES: Final = 6  # rows of the picture
RESULTS: Final = 7  # its columns
MAX_BYTES: Final = 32_000_000  # what the endpoint takes
START_SECONDS: Final = 180.0  # for the endpoint to come up
DONE_WITH_FAILURES: Final = 3  # exit status of a job that has done all it could; it has named what failed


class Steps:
    """Run the demo's steps one after another, each with a headline, its command and its time."""

    def __init__(self, total: int) -> None:
        self._console = Console(highlight=False, markup=False)
        self._total, self._number, self._began = total, 0, time.monotonic()

    def begin(self, headline: str) -> None:
        """Announce a new step."""
        self._number, self._began = self._number + 1, time.monotonic()
        self._console.print()
        self._console.print(f"{self._number}/{self._total}  {headline}", style="bold", soft_wrap=True)

    def done(self, outcome: str) -> None:
        """Report the outcome of a step."""
        self._console.print(f"→ {outcome} ({time.monotonic() - self._began:.0f} s)", style="green", soft_wrap=True)

    def job(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Run a job as a user would; returns its summary.

        Raises:
            RsirError: it failed; its own message is on stderr.
        """
        command = self._command(name, {**options, "json": True})
        last = ""
        with _running(command, subprocess.PIPE) as process:
            for line in process.stdout or ():
                last = line
                if not line.startswith("{"):  # the summary, which is for this program
                    print(line, end="", flush=True)
            process.wait()
        if process.returncode not in (0, DONE_WITH_FAILURES):
            raise RsirError(
                f"step {self._number} of {self._total} failed: jobs.{name} ended with status {process.returncode}, "
                f"for the reason above; to try it alone: {_typed(command)}"
            )
        summary: dict[str, Any] = json.loads(last)
        return summary

    @contextmanager
    def endpoint(self, options: Mapping[str, Any]) -> Iterator[str]:
        """Start the endpoint, wait until it is healthy, give its URL; stop it at the end.

        Raises:
            RsirError: it ended or was not healthy in time.
        """
        with _running(self._command("serve", options)) as process:
            url = f"http://{options['host']}:{options['port']}"
            _wait_until_healthy(url, process)
            yield url

    def keep_serving(self, url: str) -> None:
        """Say where the search page is, and wait for Ctrl-C."""
        self._console.print(f"\nThe search page is open at {url}/ until Ctrl-C", style="bold", soft_wrap=True)
        with suppress(KeyboardInterrupt):
            signal.pause()

    def _command(self, name: str, options: Mapping[str, Any]) -> list[str]:
        command = [sys.executable, "-m", f"jobs.{name}"]
        for key, value in options.items():
            if value is not None:
                flag = f"--{key.replace('_', '-')}"
                command += [flag] if value is True else [flag, str(value)]
        self._console.print(f"$ {_typed(command)}", style="cyan", soft_wrap=True)
        return command


def demo(config: DemoConfig) -> Summary:
    """Run every step of the demo; its output lies in one folder per archive."""
    began = time.monotonic()
    require("matplotlib")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request otherwise
    folder = Path(config.out) / _folder_name(config)
    models, index, report = folder / "models", folder / "index", folder / "report"
    steps = Steps(7 if config.archive is None else 5)
    archive = config.archive or str(_drawn(steps, config, folder))
    common = {"address": config.address}

    steps.begin("Fine-tune the classifier on key regions; half of each class is kept for the test")
    options = {
        "archive": archive,
        "models": models,
        "backbone": config.backbone,
        "epochs": config.classifier_epochs,
        "trainings": 1,  # enough to try it, in half the time
    }
    trained = steps.job("finetune_classifier", {**options, "seed": config.seed, **common})
    steps.done(f"{trained['images']} images of {trained['classes']} classes learned in {trained['epochs']} epochs")

    steps.begin("Index the archive")
    indexed = steps.job("index", {"archive": archive, "models": models, "index": index, **common})
    steps.done(f"{indexed['rows']} rows, {indexed['failed']} failed, {indexed['images_per_second']} images/s")

    steps.begin("Score retrieval on the test images")
    split = models / "split.csv"
    scores = steps.job("evaluate", {"index": index, "report": report, "split": split, **common})
    steps.done(f"mAP {100 * scores['map']:.1f} %, ANMRR {scores['anmrr']:.4f}")

    images, picture = read_split(str(split)), folder / "retrieval.png"
    steps.begin("Start the endpoint and upload test images to it")
    port = config.port or _free_port()
    with steps.endpoint({"index": index, "host": "127.0.0.1", "port": port, "address": config.address}) as url:
        in_index = Index(str(index)).features(columns=[schemas.URI])[schemas.URI].to_pylist()
        queries = choose_queries(images, in_index, QUERIES, config.seed)
        answers = [ask(url, query, RESULTS) for query in queries]
        found = sum(answer.found_itself for answer in answers)
        steps.done(f"{found} of {len(answers)} uploads found themselves first")

        steps.begin("Draw the queries and their ranked results")
        draw_answers(answers, {image.uri: image.label for image in images}, picture)
        steps.done(str(picture))
        seconds = time.monotonic() - began
        if sys.stdin.isatty() and sys.stdout.isatty():  # somebody is there to open it
            steps.keep_serving(url)

    return {
        "archive": archive,
        "models": str(models),
        "index": str(index),
        "picture": str(picture),
        "report": str(report),
        **{name: scores[name] for name in ("map", "anmrr")},
        "rows": indexed["rows"],
        "found_themselves": found,
        "seconds": round(seconds, 1),
        "search_page": f"python -m jobs.serve --index {shlex.quote(str(index))}",
    }


def choose_queries(
    images: list[LabelledImage], in_index: Collection[str], count: int, seed: int
) -> list[LabelledImage]:
    """Choose one random test image of each of up to `count` classes, spread evenly over the sorted class names.

    Only images whose URIs are in the index are chosen: others could not be read.
    """
    found = frozenset(in_index)
    tests: dict[str, list[LabelledImage]] = {}
    for image in sorted(images):
        if image.split == "test" and image.uri in found:
            tests.setdefault(image.label, []).append(image)
    labels = sorted(tests)
    count = min(count, len(labels))
    rng = np.random.default_rng(seed)
    chosen = [tests[labels[i * len(labels) // count]] for i in range(count)]
    return [candidates[rng.integers(len(candidates))] for candidates in chosen]


def ask(url: str, query: LabelledImage, k: int) -> Answer:
    """Upload one image; its k nearest others.

    Raises:
        RsirError: the endpoint refused it; ImageError: the file cannot be read.
    """
    name = query.uri.rsplit("/", 1)[-1]
    files = {"image": (name, read_file(query.uri, MAX_BYTES))}
    response = httpx.post(f"{url}/search", files=files, data={"k": str(k + 1), "distance": "weighted"}, timeout=60)
    if response.is_error:
        raise RsirError(f"{url}/search answered {response.status_code} to an upload of {query.uri}: {response.text}")
    return Answer.of(query, response.json())


def _drawn(steps: Steps, config: DemoConfig, folder: Path) -> Path:
    """Draw the archive, unless a run before has, and train the detector on scenes like it."""
    archive, boxes = folder / "archive", folder / "boxes"
    steps.begin("Draw an archive of aerial-like scenes, and scenes with boxes for the detector")
    if not archive.exists():
        write_boxes(boxes, WITH_BOXES, config.seed + 1)
        unfinished = folder / "archive.unfinished"
        write_archive(unfinished, PER_CLASS, config.seed)
        unfinished.rename(archive)  # last: it exists when all is drawn
    steps.done(f"{archive}, {boxes}")

    steps.begin("Train the detector on the boxes, from nothing")
    options = {"data": boxes / "data.yaml", "models": folder / "models", "epochs": config.detector_epochs}
    trained = steps.job("finetune_detector", {**options, **DETECTOR, "seed": config.seed})
    steps.done(f"mAP50 {100 * trained['map50']:.0f} % after {trained['epochs']} epochs")
    return archive


def _folder_name(config: DemoConfig) -> str:
    """Name the archive's own folder, so that no other archive's detector or rows get in."""
    if config.archive is None:
        return f"drawn-{config.seed}"
    fs, path = file_system(config.archive)
    uri = str(Path(path).resolve()) if isinstance(fs, LocalFileSystem) else config.archive.rstrip("/")
    return f"{uri.rsplit('/', 1)[-1]}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _running(command: list[str], stdout: int | None = None) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that ends with the body at the latest, also when the body is interrupted."""
    with subprocess.Popen(command, stdout=stdout, text=True) as process:  # noqa: S603 -- our own jobs
        try:
            yield process
        finally:
            process.terminate()  # nothing happens to one that has ended


def _wait_until_healthy(url: str, process: "subprocess.Popen[str]") -> None:
    began = time.monotonic()
    while time.monotonic() - began < START_SECONDS:
        if process.poll() is not None:
            raise RsirError(f"jobs.serve ended with status {process.returncode}, for the reason above")
        try:
            if httpx.get(f"{url}/healthz", timeout=10).is_success:
                return
        except httpx.TransportError:
            pass  # nobody listens yet
        time.sleep(0.5)
    raise RsirError(f"the endpoint at {url} was not healthy within {START_SECONDS:.0f} s; see its messages above")


def _typed(command: list[str]) -> str:
    """Format a command as one would type it."""
    return shlex.join(["python", *command[1:]])
