"""Listing an archive: time, and memory beyond that of an empty process. Files are empty, a thousand to a folder."""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from rsir_core.archive import list_images
from rsir_core.plan import listing_table

PER_FOLDER = 1000


def write_archive(root: str, count: int) -> None:
    """Empty files that look like images, in two levels of folders."""
    for first in range(0, count, PER_FOLDER):
        folder = Path(root) / f"{first // PER_FOLDER // 50:03}" / f"{first // PER_FOLDER:05}"
        folder.mkdir(parents=True)
        for i in range(first, min(first + PER_FOLDER, count)):
            os.close(os.open(folder / f"tile{i:08}.jpg", os.O_CREAT | os.O_WRONLY))


def main() -> None:
    """One listing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--archive", help="list this instead of files made for it; for example s3://bucket/prefix")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.archive is None:
            write_archive(folder, args.images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        began, cpu = time.perf_counter(), time.process_time()
        table = listing_table(list_images(args.archive or folder))
        result = {
            "images": len(table),
            "seconds": round(time.perf_counter() - began, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "seconds_per_million": round((time.perf_counter() - began) * 1e6 / len(table), 1),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
            "bytes_per_image": round(table.nbytes / len(table), 1),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
