"""An index of embeddings by others: the first run, one that finds nothing new, and averaging with the nearest rows.

Vectors are mixtures of pairs of centres with noise, so that neighbours are as hard to find as in a real archive.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.indexing.index import index_archive
from jobs.indexing.options import IndexConfig
from jobs.pipeline.cluster import joined
from rsir_core import schemas

BLOCK = 10_000  # rows drawn at once
CENTRES = 2000


def write_vectors(path: Path, rows: int, dimensions: int) -> None:
    """Write a Parquet file of ids and vectors."""
    rng = np.random.default_rng(0)
    centres = rng.gamma(0.4, 1.0, (CENTRES, dimensions)).astype(np.float32)
    schema = pa.schema([("id", pa.string()), ("embedding", schemas.VECTOR)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, BLOCK):
            n = min(BLOCK, rows - start)
            share = 0.3 * rng.random((n, 1), np.float32)
            one, other = centres[rng.integers(CENTRES, size=(2, n))]
            drawn = (1 - share) * one + share * other + 0.2 * rng.standard_gamma(0.6, (n, dimensions), np.float32)
            ids = [f"tile{row:09}" for row in range(start, start + n)]
            writer.write_table(pa.table([ids, schemas.to_vectors(drawn)], schema))


def main(argv: Sequence[str] | None = None) -> None:
    """Three runs on one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--neighbours", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, joined(None):
        archive = Path(folder) / "vectors.parquet"
        write_vectors(archive, args.rows, args.dimensions)
        config = IndexConfig(archive=str(archive), vectors="auto", index=f"{folder}/index")
        averaging = config.model_copy(update={"average_neighbours": args.neighbours})
        seconds = []
        for run in (config, config, averaging):
            began = time.perf_counter()
            index_archive(run)
            seconds.append(round(time.perf_counter() - began, 1))
    names = ("first_seconds", "unchanged_seconds", "average_seconds")
    print(json.dumps({"rows": args.rows, "dimensions": args.dimensions, **dict(zip(names, seconds, strict=True))}))


if __name__ == "__main__":
    main()
