"""From nothing to an answer: each command and the Python API in processes of their own, median of several.

The index holds links to one drawn JPEG with drawn embeddings, and the models of `index`, so that `index` finds nothing
new in it. Files lie in the page cache after the first of the repeats; numba's cache is filled.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.pipeline.stage import ROWS_PER_FILE
from jobs.reference import JOBS
from rsir_core.archive.listing import list_images
from rsir_core.index.diff import listing_table
from rsir_core.index.index import Index
from rsir_core.index.no_match import NoMatchThreshold, put_no_match_threshold
from rsir_core.models.bundle import read_settings
from tests.benchmarks.index import write_models
from tests.benchmarks.rerun import link_images
from tests.support.stored_index import publish_features, store_embeddings
from tests.support.writing import writer_of

ROOT = Path(__file__).parents[2]
SEARCH = """
import sys, rsir_core
index = rsir_core.open(sys.argv[1])
assert len(index.search(sys.argv[2], 20)) == min(20, len(index))
"""


def write_index(root: Path, rows: int) -> Index:
    """An index of so many links in root/archive, described by root/models."""
    write_models(str(root / "models"))
    link_images(root / "archive", 0, rows)
    index = Index(str(root / "index"))
    writer_of(index).adopt_bundle(str(root / "models"))
    models = read_settings(str(root / "models"))
    listing = listing_table(list_images(str(root / "archive")))
    store_embeddings(index, listing, models.fingerprint, len(models.classes), ROWS_PER_FILE)
    publish_features(index, listing, models.fingerprint, models.classes, 19)
    ((bundle, pca),) = index.models()
    measured = NoMatchThreshold(bundle, pca, 99, rows, 0.01, 0.5)
    put_no_match_threshold(writer_of(index), index.version(), measured)
    return index


def environment() -> dict[str, str]:
    """Return this process's environment without what tests set in it."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "OMP_NUM_THREADS")}
    return kept | {"PYTHONPATH": str(ROOT)}


def seconds(repeats: int, words: Sequence[str], status: int = 0) -> float:
    """Median over runs of a process of this interpreter, which ends with a status."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, *words], env=environment(), capture_output=True, text=True, check=False)
        took.append(time.perf_counter() - began)
        assert done.returncode == status, f"{words}\n{done.stderr}"
    return round(statistics.median(took), 2)


def served_seconds(repeats: int, index: str) -> tuple[float, float]:
    """Measure the median seconds until an endpoint is ready, and until it has ended after SIGINT."""
    command = [sys.executable, "-m", "jobs.serve", "--index", index, "--port", "0"]
    ready, stopped = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as process:
            assert process.stdout is not None
            assert "http" in process.stdout.readline()
            ready.append(time.perf_counter() - began)
            began = time.perf_counter()
            process.send_signal(signal.SIGINT)
            process.communicate()
        stopped.append(time.perf_counter() - began)
    return round(statistics.median(ready), 2), round(statistics.median(stopped), 2)


def main(argv: Sequence[str] | None = None) -> None:
    """Every figure once."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.startup", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    n = options.repeats
    modules = [f"jobs.{name}" for name in (*JOBS, "serve_tokens", "rsir")]
    result: dict[str, float] = {
        "rows": options.rows,
        "help_seconds": max(seconds(n, ["-m", module, "--help"]) for module in modules),
        "usage_error_seconds": max(seconds(n, ["-m", module, "--no-such-option"], 2) for module in modules),
        "import_seconds": seconds(n, ["-c", "import rsir_core"]),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        index = write_index(root, options.rows).uri
        image = root / "image.jpg"  # what all links lead to
        first = next(list_images(str(root / "archive"))).image_id
        seconds(1, ["-c", SEARCH, index, first])  # numba compiles, once per machine
        result["open_and_search_seconds"] = seconds(n, ["-c", SEARCH, index, first])
        result["search_image_seconds"] = seconds(n, ["-m", "jobs.rsir", "search", str(image), "--index", index])
        queries = root / "queries"
        queries.mkdir()
        (queries / "image.jpg").symlink_to(image)
        ask = ["-m", "jobs.query", "--queries", str(queries), "--index", index, "--out"]
        answered = [seconds(1, [*ask, str(root / f"answers{i}")]) for i in range(n)]
        result["query_seconds"] = round(statistics.median(answered), 2)
        again = ["--archive", str(root / "archive"), "--models", str(root / "models"), "--index", index]
        result["unchanged_index_seconds"] = seconds(n, ["-m", "jobs.index", *again])
        result["serve_ready_seconds"], result["serve_stop_seconds"] = served_seconds(n, index)
    print(json.dumps(result) if options.json else "\n".join(f"{k:>24}  {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
