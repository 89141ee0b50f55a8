"""An index loaded to be searched: time, memory per row, and the first query. Rows are drawn as in `search`.

`bytes_per_row` is what the process holds beyond what it did before, less what the system may take back: files that are
mapped. Writing the index, which is what takes longest here, is not in `seconds`.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jobs.indexing.publishing import FEATURES_PER_FILE
from rsir_core.index.index import Index
from rsir_core.index.writer import write_rows
from rsir_core.retrieval.partition import Partition, in_runs
from rsir_core.search.distance import classes
from rsir_core.search.exact import Searcher
from tests.support.drawn_rows import CLASSES, DIMENSIONS, drawn, feature_rows, made_up
from tests.support.writing import writer_of


def write_index(uri: str, n: int) -> None:
    """n rows by class in as many files as the index job makes of them."""
    index, rng = Index(uri), np.random.default_rng(0)
    feature, p = drawn(made_up(rng), n, False, rng)
    by_class = np.argsort(classes(p), kind="stable")
    parts = [by_class[start : start + FEATURES_PER_FILE] for start in range(0, n, FEATURES_PER_FILE)]
    rows = (feature_rows(at, feature[at], p[at], ("bundle", "pca")) for at in parts)
    files = [write_rows(index.uri, "features", *in_runs(part)) for part in rows]
    writer_of(index).commit("features", files, "overwrite")


def held(kind: str) -> int:
    """Bytes of this process: `RssAnon`, its own, or `VmHWM`, the most it ever had with what it maps."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(kind)).split()[1]) * 1024


def main(argv: Sequence[str] | None = None) -> None:
    """One load."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.load", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--index", help="folder of an index written by an earlier run of this; made if it is not there")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        uri = options.index or folder
        if not (Path(uri) / "features").exists():  # by a process of its own, whose memory is not looked at
            writer = multiprocessing.get_context("spawn").Process(target=write_index, args=(uri, options.rows))
            writer.start()
            writer.join()
        index = Index(uri)
        _, warm = Searcher.of(
            ["a"], np.zeros((1, DIMENSIONS), np.float32), np.full((1, CLASSES), 1 / CLASSES, np.float32)
        )
        warm.search(np.zeros(DIMENSIONS, np.float32), np.full(CLASSES, 1 / CLASSES, np.float32), 1)  # compiles
        before, began = held("RssAnon"), time.perf_counter()
        resident = Partition(index, index.version())
        loaded = time.perf_counter() - began
        n = len(resident)
        resident.search(resident.feature[n // 2], np.full(CLASSES, 1 / CLASSES, np.float32), 50, None, euclidean=False)
        result = {
            "rows": n,
            "seconds": round(loaded, 1),
            "seconds_to_first_answer": round(time.perf_counter() - began, 1),
            "bytes_per_row": round((held("RssAnon") - before) / n, 1),
            "peak_bytes": held("VmHWM"),
        }
    print(json.dumps(result) if options.json else "\n".join(f"{k:>24}  {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
