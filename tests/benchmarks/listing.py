"""Listing an archive: time, and memory beyond that of an empty process. Files are empty, a thousand to a folder.

With `--s3` they are in a bucket, on a server of S3's protocol that only lists; it takes part of the two cores.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa

from rsir_core.archive.listing import list_images
from rsir_core.index.diff import listing_table, make_plan
from rsir_core.index.index import Index
from rsir_core.index.layout import KEY, TableName
from tests.support.store import Store

PER_FOLDER = 1000


def write_archive(root: str, count: int) -> None:
    """Empty files that look like images, in two levels of folders."""
    for first in range(0, count, PER_FOLDER):
        folder = Path(root) / f"{first // PER_FOLDER // 50:03}" / f"{first // PER_FOLDER:05}"
        folder.mkdir(parents=True)
        for i in range(first, min(first + PER_FOLDER, count)):
            os.close(os.open(folder / f"tile{i:08}.jpg", os.O_CREAT | os.O_WRONLY))


@contextmanager
def bucket(count: int) -> Iterator[str]:
    """URI of a prefix on an S3 server that lists so many objects, in folders as above."""
    command = [sys.executable, "-m", "tests.support.listed_bucket", str(count)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            os.environ.update(Store(server.stdout.readline().strip()).environment)
            yield "s3://bucket/archive"
        finally:
            server.terminate()


class Holding(Index):
    """An index that holds all of a listing: its keys are made anew at each look, as reading tables makes them."""

    listing: pa.Table

    def keys(self, name: TableName, more: Sequence[str] = ()) -> pa.Table:
        """Those of the listing; no file has failed."""
        if name == "failures":
            return super().keys(name, more)
        chunks = [batch.to_pylist() for batch in self.listing.select(KEY).to_batches()]
        return pa.concat_tables([pa.Table.from_pylist(chunk, self.listing.select(KEY).schema) for chunk in chunks])


def peaks(listing: pa.Table, before: int) -> dict[str, int]:
    """Memory beyond `before` once a listing was compared with an empty index, and then with one that has all of it."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        index = Holding(folder)
        index.listing = listing
        for name, compared in (("first_run", Index(folder)), ("again", index)):
            make_plan(compared, listing, retry_failed=False)
            found[f"{name}_peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """One listing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--archive", help="list this instead of files made for it; for example s3://bucket/prefix")
    parser.add_argument("--s3", action="store_true", help="in a bucket on loopback")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with ExitStack() as opened:
        archive = opened.enter_context(bucket(args.images)) if args.s3 else args.archive
        if archive is None:
            archive = opened.enter_context(tempfile.TemporaryDirectory())
            write_archive(archive, args.images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        began, cpu = time.perf_counter(), time.process_time()
        table = listing_table(list_images(archive))
        result = {
            "images": len(table),
            "seconds": round(time.perf_counter() - began, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "cpu_ms_per_1000": round((time.process_time() - cpu) * 1e6 / len(table), 2),
            "seconds_per_million": round((time.perf_counter() - began) * 1e6 / len(table), 1),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
            "bytes_per_image": round(table.nbytes / len(table), 1),
        }
        result |= peaks(table, before)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
