"""A run over a large index in which few images are new, changed or gone, alone and together.

The index's rows are drawn, as in `rerun`. The archive is a listing in memory, so that the time of listing a store is
not in these figures; new and changed images are one drawn JPEG under many names, read and described for real. Ray runs
already. Wanted: at most 1.3 times describing the images alone (as many, where none is described), and 10 s.

`driver_bytes` is what the driver's memory grew by in a run, most of it the keys that are compared (some 200 bytes per
image); `driver_bytes_replacing` is what it grew by while files were rewritten.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from PIL import Image

from jobs.demo.scenes import draw_scene
from jobs.index import index_archive
from jobs.indexing.no_match import measure_no_match_threshold
from jobs.indexing.options import IndexConfig
from jobs.indexing.replacing import Replacing
from jobs.pipeline.cluster import joined
from jobs.pipeline.stage import ROWS_PER_FILE
from rsir_core.archive.listing import ImageFile
from rsir_core.index.diff import listing_table
from rsir_core.index.index import Index
from rsir_core.index.layout import TableName
from rsir_core.models.bundle import load_bundle
from tests.benchmarks.index import write_models
from tests.support.options import replaced
from tests.support.stored_index import publish_features, store_embeddings
from tests.support.watching import peak
from tests.support.writing import writer_of

TABLES: Final[tuple[TableName, ...]] = ("features", "embeddings")


class Listing:
    """An archive in memory: numbers of images, and which of them have another content than at first."""

    def __init__(self, image: Path, rows: int) -> None:
        self.image, self.first, self.last = str(image), 0, rows
        self.changed: set[int] = set()

    def __call__(self, archive: str) -> Iterator[ImageFile]:
        """In place of `list_images`."""
        for i in range(self.first, self.last):
            yield ImageFile(f"{i // 1000:06}/{i:09}.jpg", self.image, "2" if i in self.changed else "1", 20_000)


def size_of(folder: str) -> int:
    """Bytes of the Parquet files below a folder."""
    return sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))


def measured(config: IndexConfig, listing: Listing) -> dict[str, Any]:
    """Seconds, bytes written and memory of one run."""
    index = Index(config.index)
    before = {name: size_of(index.table_uri(name)) for name in TABLES}
    peak()  # what was before does not count
    start, peaks = peak(), list[int]()
    replacing: dict[str, int] = {}

    class Watched(Replacing):
        """As it is, with an eye on this process's memory from its start to its commit."""

        def __init__(self, *given: Any) -> None:
            peaks.append(peak())
            self.start = peak()
            super().__init__(*given)

        def commit(self, *given: Any) -> None:
            super().commit(*given)
            peaks.append(peak())
            replacing["driver_bytes_replacing"] = peaks[-1] - self.start

    with patch("jobs.indexing.listed.list_images", listing), patch("jobs.indexing.publishing.Replacing", Watched):
        began = time.perf_counter()
        summary = index_archive(config)
        seconds = time.perf_counter() - began
    peaks.append(peak())
    reports = sorted((Path(index.uri) / "runs").glob("*.json"))
    return {
        "seconds": round(seconds, 1),
        **{name: summary[name] for name in ("new", "changed", "gone", "described")},
        "by_stage": json.loads(reports[-1].read_text())["seconds_by_stage"],
        "driver_bytes": max(peaks) - start,
        **replacing,
        "bytes_written": {name: size_of(index.table_uri(name)) - n for name, n in before.items()},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Describe some images alone; then new, changed and gone ones, and all three together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    n = args.changes
    gc.freeze()  # as `command.run` does
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_models(str(root / "models"))
        models = load_bundle(str(root / "models"))
        Image.fromarray(draw_scene("forest", np.random.default_rng(0)).pixels).save(root / "image.jpg", quality=95)
        archive = Listing(root / "image.jpg", args.rows)
        index = Index(str(root / "index"))
        writer_of(index).adopt_bundle(str(root / "models"))
        listing = listing_table(archive(""))
        store_embeddings(index, listing, models.fingerprint, len(models.classes), ROWS_PER_FILE * 16)
        publish_features(index, listing, models.fingerprint, models.classes, 19)
        del listing
        config = IndexConfig(archive=str(root), models=str(root / "models"), index=index.uri)
        with joined(None):
            measure_no_match_threshold(writer_of(index))  # as the job leaves an index
            for name in ("warm", "alone"):  # the first starts workers
                elsewhere = replaced(config, index=str(root / name))
                alone = measured(elsewhere, Listing(root / "image.jpg", n))
            unchanged = measured(config, archive)
            archive.last += n
            new = measured(config, archive)
            archive.changed |= set(range(n, 2 * n))
            changed = measured(config, archive)
            archive.first += n
            gone = measured(config, archive)
            archive.first, archive.last = archive.first + n, archive.last + n
            archive.changed |= set(range(4 * n, 5 * n))
            together = measured(config, archive)
    runs = {"new": new, "changed": changed, "gone": gone, "together": together}
    each = alone["by_stage"]["describe"] / n
    wanted = {name: round(1.3 * each * (run["described"] or n) + 10, 1) for name, run in runs.items()}
    result = {
        "rows": args.rows,
        "changes": n,
        "describing_seconds": alone["by_stage"]["describe"],
        "unchanged": unchanged,
        **runs,
        "wanted_seconds": wanted,
        "is_as_wanted": {name: run["seconds"] <= wanted[name] for name, run in runs.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
