"""Do time and again what once made Ray print crashes and warnings of its own, and count what it prints.

    python -m tests.quiet_runs --runs 20

Each situation is a real job, or two, in processes of their own. Every line that they print is kept; what is no line of
the job's own is counted, and the first of each kind is shown.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
import ray

from jobs.pipeline.cluster import joined
from tests.support.serving import build_index

IDLE_WORKERS: Final = 8  # that a job leaves without work
IDLE_SECONDS: Final = 5.0  # in which Ray ends those above its limit, left to itself
TOGETHER_SECONDS: Final = 8.0  # of two trainings; the one that asked the wrong Ray said so every few seconds
LIMIT: Final = 300.0  # seconds of one run
NOISE: Final = re.compile(
    r"Mutex corrupt|SIGABRT|SIGSEGV|Fatal Python error|Traceback|Found multiple active Ray|graceful_shutdown failed"
    r"|infinite retries|WARNING|ERROR|Warning:"
)


def leave_workers_idle() -> None:
    """Give many workers one task each, and go on for so long that Ray would end them; say how many have ended."""
    with joined(None):
        ray.get([_sleeper.remote(1.0) for _ in range(IDLE_WORKERS)])
        before = _workers()
        time.sleep(IDLE_SECONDS)
        if ended := before - _workers():
            print(f"WARNING: {len(ended)} workers have ended by themselves")


@ray.remote(num_cpus=0)
def _sleeper(seconds: float) -> None:
    time.sleep(seconds)


def _workers() -> set[int]:
    """Worker processes of this one's Ray."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::"):
                found.add(process.pid)
    return found


def train_beside_another(folder: str) -> None:
    """Train nothing with Ray Train, until another process has done so beside this one for a while."""
    from ray.train import RunConfig, ScalingConfig  # noqa: PLC0415 -- slow to import, and not for the others
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    def until_both_did(here: str, mine: str) -> None:
        (Path(here) / mine).touch()
        ends = time.monotonic() + LIMIT
        while len(list(Path(here).glob("began-*"))) < 2 and time.monotonic() < ends:
            time.sleep(0.1)
        time.sleep(TOGETHER_SECONDS)

    with joined(None):
        TorchTrainer(
            lambda: until_both_did(folder, f"began-{os.getpid()}"),
            scaling_config=ScalingConfig(num_workers=1, use_gpu=False),
            run_config=RunConfig(storage_path=folder, name=str(os.getpid())),
        ).fit()


def _idle_workers(_: Path) -> list[str]:
    return [_output_of(["-m", "tests.quiet_runs", "--do", "idle"])]


def _two_trainings(folder: Path) -> list[str]:
    with tempfile.TemporaryDirectory(dir=folder) as here:
        both = [_started(["-m", "tests.quiet_runs", "--do", "train", "--folder", here]) for _ in range(2)]
        return [process.communicate(timeout=LIMIT)[0] for process in both]


def _evaluation(folder: Path) -> list[str]:
    report = ["--report", str(folder / "report")]
    return [_output_of(["-m", "jobs.evaluate", "--index", str(folder / "index"), *report])]


def _stopped_endpoint(folder: Path) -> list[str]:
    process = _started(["-m", "jobs.serve", "--index", str(folder / "index"), "--port", "0"])
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "searchable" in line:
            process.send_signal(signal.SIGINT)
    if process.wait(LIMIT):
        lines.append(f"ERROR exit status {process.returncode}\n")
    return ["".join(lines)]


def _started(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _output_of(arguments: list[str]) -> str:
    with _started(arguments) as process:
        output, _ = process.communicate(timeout=LIMIT)
    if process.returncode == 0:
        return output
    last = output.strip().splitlines()[-1:]
    return f"{output}\nERROR exit status {process.returncode}: {''.join(last)}"


SITUATIONS: Final[dict[str, Callable[[Path], list[str]]]] = {
    "workers without work": _idle_workers,
    "two trainings": _two_trainings,
    "evaluation": _evaluation,
    "stopped endpoint": _stopped_endpoint,
}


def noise_in(output: str) -> dict[str, list[str]]:
    """Lines that no job prints itself, by their text without numbers; for each kind the first one's surroundings."""
    lines, found = output.splitlines(), dict[str, list[str]]()
    for i, line in enumerate(lines):
        if NOISE.search(line):
            found.setdefault(re.sub(r"\d+", "N", line.strip()), lines[max(0, i - 3) : i + 30])
    return found


def main() -> None:
    """Run each situation so many times; exit status 1 if anything was printed that should not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", choices=SITUATIONS, help="one situation")
    parser.add_argument("--do", choices=("idle", "train"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.do == "idle":
        return leave_workers_idle()
    if args.do == "train":
        return train_beside_another(args.folder)
    loud = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_index(folder, per_class=2)
        for situation in [args.only] if args.only else SITUATIONS:
            began, found, runs = time.monotonic(), Counter[str](), 0
            first = dict[str, list[str]]()
            for i in range(args.runs):
                noise = [noise_in(output) for output in SITUATIONS[situation](folder)]
                runs += any(noise)
                found.update(line for of_output in noise for line in of_output)
                first = {line: around for of_output in noise for line, around in of_output.items()} | first
                print(f"{situation}: {i + 1} of {args.runs}, {runs} loud", file=sys.stderr, flush=True)
            loud += runs
            seconds = round(time.monotonic() - began)
            print(json.dumps({"situation": situation, "runs": args.runs, "loud": runs, "seconds": seconds}), flush=True)
            for line, count in found.most_common(10):
                print(f"  in {count} runs: {line[:240]}\n    " + "\n    ".join(first[line]), flush=True)
    sys.exit(1 if loud else 0)


if __name__ == "__main__":
    main()
