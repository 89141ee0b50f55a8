"""Memory of `--compact` over an index that many nightly runs have left in small files, for many rows against few.

`worker_bytes` is the most that one process held beside the driver, which sees file metadata and keys only.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from jobs.indexing.compacting import compact
from jobs.indexing.publishing import fit_pca, project
from jobs.pipeline.cluster import joined
from rsir_core import schemas
from rsir_core.index.embedding_files import stored_keys
from rsir_core.index.index import Index
from rsir_core.index.layout import TableName
from rsir_core.index.lease import Lease
from rsir_core.index.writer import IndexWriter
from tests.support.drawn_rows import NAMES
from tests.support.stored_index import store_embeddings
from tests.support.watching import Watch
from tests.support.writing import writer_of

NIGHT = 10_000  # images that each run has added
PER_COMMIT = 1_000


def compacted(count: int) -> dict[str, Any]:
    """What compacting so many rows takes, and what it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        index = Index(folder)
        ids = [f"tiles/{i:09}.jpg" for i in range(count)]
        listing = pa.table([ids, ids, ["1"] * count, [1] * count, [None] * count], schemas.LISTING)
        store_embeddings(index, listing, "bundle", len(NAMES), PER_COMMIT)
        with joined(None):
            keys = stored_keys(index)
            pca = fit_pca(index, keys, 19)
            nights = [project(index, keys.slice(start, NIGHT), pca, NAMES) for start in range(0, count, NIGHT)]
            writer_of(index).commit("features", [file for night in nights for file in night.files], "append")
            before = _files(index)
            with Watch() as watch:
                began = time.perf_counter()
                with Lease.take(index.uri) as lease:
                    compact(IndexWriter(index, lease))
                seconds = time.perf_counter() - began
            for name in ("features", "embeddings"):
                assert _ids(index, name) == ids, f"{name} has lost or doubled rows"
        return {
            "files_before": before,
            "files": _files(index),
            "seconds": round(seconds, 1),
            "worker_bytes": watch.largest,
            "all_bytes": watch.peak,
        }


def _ids(index: Index, name: TableName) -> list[str]:
    return sorted(index.keys(name)[schemas.IMAGE_ID].to_pylist())


def _files(index: Index) -> int:
    return sum(len(list(index.table_files(name))) for name in ("features", "embeddings"))


def main(argv: Sequence[str] | None = None) -> None:
    """Few, then many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    few, many = compacted(args.few), compacted(args.many)
    ratio = many["worker_bytes"] / few["worker_bytes"] if few["worker_bytes"] else None  # of few rows nothing is seen
    print(json.dumps({"few": args.few, "many": args.many, "of_few": few, "of_many": many, "worker_ratio": ratio}))


if __name__ == "__main__":
    main()
