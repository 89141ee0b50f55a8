"""Running the index job again: on an unchanged archive, and with some new images; and what an image takes on disk.

The index of the old images is written with drawn embeddings; new images are described by the models of `index`. Ray
runs already. All file sizes are those of 1,280 dimensions, 19 components and 21 classes.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.demo.scenes import draw_scene
from jobs.index import index_archive
from jobs.indexing.no_match import measure_no_match_threshold
from jobs.indexing.options import IndexConfig
from jobs.pipeline.cluster import joined
from jobs.pipeline.stage import ROWS_PER_FILE
from rsir_core.archive.listing import list_images
from rsir_core.index.diff import listing_table
from rsir_core.index.index import Index
from rsir_core.index.layout import TableName
from rsir_core.models.bundle import load_bundle
from tests.benchmarks.index import write_models
from tests.support.options import replaced
from tests.support.stored_index import publish_features, store_embeddings
from tests.support.writing import writer_of

PER_FOLDER = 1000


def link_images(root: Path, first: int, count: int) -> None:
    """Links to one drawn JPEG, a thousand to a folder."""
    source = root.parent / "image.jpg"
    if not source.exists():
        Image.fromarray(draw_scene("forest", np.random.default_rng(0)).pixels).save(source, quality=95)
    for i in range(first, first + count):
        folder = root / f"{i // PER_FOLDER:05}"
        if i % PER_FOLDER == 0 or i == first:
            folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:08}.jpg").symlink_to(source)


def bytes_per_row(index: Index, name: TableName) -> float:
    """Of a table's newest version on disk."""
    files = index.table_files(name)
    size = sum((Path(index.table_uri(name)) / file.name).stat().st_size for file in files)
    return round(size / sum(file.row_count for file in files), 1)


def main(argv: Sequence[str] | None = None) -> None:
    """An unchanged run, then one with new images, then those alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--new", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_models(str(root / "models"))
        models = load_bundle(str(root / "models"))
        link_images(root / "archive", 0, args.rows)
        index = Index(str(root / "index"))
        writer_of(index).adopt_bundle(str(root / "models"))
        listing = listing_table(list_images(str(root / "archive")))
        store_embeddings(index, listing, models.fingerprint, len(models.classes), ROWS_PER_FILE)
        publish_features(index, listing, models.fingerprint, models.classes, 19)
        sizes = {f"{name}_bytes_per_image": bytes_per_row(index, name) for name in ("embeddings", "features")}
        config = IndexConfig(archive=str(root / "archive"), models=str(root / "models"), index=index.uri)
        with joined(None):
            measure_no_match_threshold(writer_of(index))  # as the job leaves an index
            unchanged = index_archive(config)
            assert unchanged["described"] == 0 and unchanged["rows"] == args.rows
            link_images(root / "new", 0, args.new)
            alone = replaced(config, archive=str(root / "new"), index=str(root / "alone"))
            index_archive(alone)  # starts workers, which the next ones find
            shutil.rmtree(root / "alone")
            began = time.perf_counter()
            index_archive(alone)
            alone_seconds = time.perf_counter() - began
            link_images(root / "archive", args.rows, args.new)
            began = time.perf_counter()
            added = index_archive(config)
            added_seconds = time.perf_counter() - began
            assert added["described"] == args.new and added["rows"] == args.rows + args.new
    result = {
        "rows": args.rows,
        "unchanged_seconds": unchanged["seconds"],
        "new": args.new,
        "added_seconds": round(added_seconds, 1),
        "alone_seconds": round(alone_seconds, 1),
        "ratio_added_alone": round(added_seconds / alone_seconds, 2),
        **sizes,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
