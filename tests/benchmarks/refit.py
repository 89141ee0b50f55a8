"""`--refit-pca` from stored embeddings: the fit alone, and with projecting, clustering and publishing all rows.

Ray runs already, one thread per worker. `worker_bytes` is the most that one process held beside the driver.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence

import pyarrow as pa

from jobs.indexing.compacting import EMBEDDINGS_PER_FILE
from jobs.indexing.publishing import fit_pca, project
from jobs.pipeline.cluster import joined
from rsir_core import schemas
from rsir_core.index.embedding_files import stored_keys
from rsir_core.index.index import Index
from tests.support.drawn_rows import NAMES
from tests.support.stored_index import store_embeddings
from tests.support.watching import Watch
from tests.support.writing import writer_of


def main(argv: Sequence[str] | None = None) -> None:
    """One fit, one projection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--components", type=int, default=19)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        index = Index(folder)
        ids = [f"tiles/{i:09}.jpg" for i in range(args.rows)]
        times = [None] * args.rows
        listing = pa.table([ids, ids, ["1"] * args.rows, [1] * args.rows, times], schemas.LISTING)
        store_embeddings(index, listing, "bundle", len(NAMES), EMBEDDINGS_PER_FILE)
        with joined(None), Watch() as watch:
            began = time.perf_counter()
            keys = stored_keys(index)
            pca = fit_pca(index, keys, args.components)
            fitted = time.perf_counter()
            fit_bytes = watch.largest
            projected = project(index, keys, pca, NAMES)
            writer_of(index).commit("features", projected.files, "overwrite")
            ended = time.perf_counter()
    result = {
        "rows": args.rows,
        "fit_seconds": round(fitted - began, 1),
        "fit_worker_bytes": fit_bytes,
        "project_seconds": round(ended - fitted, 1),
        "worker_bytes": watch.largest,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
