"""Scenes that nobody has seen: in by one command, found by place, by date and by a window cut from them.

Two COGs of side × side pixels, made of pictures side by side, are indexed by tiles; then each of some windows, a few
pixels off the tile that it is of, is asked for: by itself, and among the tiles of its place or date only.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from jobs.demo.scenes import write_archive
from jobs.index import index_archive
from jobs.indexing.options import IndexConfig
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.imagery.decode import read_picture
from rsir_core.index.index import Index
from rsir_core.retrieval.describing import QueryDescriber
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.query import Ranking
from rsir_core.retrieval.served_version import open_version
from rsir_core.search.filters import Filter
from tests.indexing.test_scene_search import write_models
from tests.support.mosaics import write_mosaic
from tests.support.watching import Watch

NAMES = ("S2A_20240115T101031_west.tif", "scene_2023-07-12.tif")
SHIFT = (6, 4)  # pixels


def found(index: str, queries: int) -> dict[str, int]:
    """How many windows, moved by `SHIFT`, find the tile that they are of, as the first result."""
    served = open_version(index)
    rows, describer = PartitionSearch(served), QueryDescriber(served, 10**8)
    table = Index(index).features(columns=["image_id", "uri", "bbox", "time", "window"]).to_pylist()
    inner = [row for row in table if row["window"]["x"] and row["window"]["y"]]
    hits = {"window": 0, "window_and_place": 0, "window_and_date": 0}
    for row in (inner[i] for i in np.random.default_rng(0).choice(len(inner), queries, replace=False)):
        x, y = (row["window"][name] - shift for name, shift in zip("xy", SHIFT, strict=True))
        moved = row["uri"].replace(f"#xywh={row['window']['x']},{row['window']['y']},", f"#xywh={x},{y},")
        (query,) = describer.describe([read_picture(moved)], [None])
        time: datetime = row["time"]
        for name, wanted in (
            ("window", Filter()),
            ("window_and_place", Filter(bbox=BoundingBox(*row["bbox"].values()))),
            ("window_and_date", Filter(start=time, end=time)),
        ):
            ranking = Ranking(1, filter=wanted)
            best = rows.rank(query, ranking, rows.passing(wanted)).rows["image_id"]
            hits[name] += best.to_pylist() == [row["image_id"]]
    return hits


def main(argv: Sequence[str] | None = None) -> None:
    """Make, index, ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--images", help="folder of JPEGs to make scenes of; default: drawn ones")
    parser.add_argument("--per-class", type=int, default=40, help="pictures to draw")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if args.images is None:
            write_archive(root / "drawn", args.per_class, seed=0)
        pictures = [str(file) for file in sorted(Path(args.images or root / "drawn").rglob("*.jpg"))]
        (root / "archive").mkdir()
        order = np.random.default_rng(0)
        for name, easting in zip(NAMES, (400_000, 600_000), strict=True):
            mixed = [pictures[i] for i in order.permutation(len(pictures))]
            write_mosaic(root / "archive" / name, mixed, args.side, (easting, 5_000_000))
        write_models(str(root / "models"))
        config = IndexConfig(archive=str(root / "archive"), models=str(root / "models"), index=str(root / "index"),
                             tile=256, overlap=args.overlap)  # fmt: skip
        with Watch() as watch:
            first = index_archive(config)
        again = index_archive(config)
        measured = {"side": args.side, "tiles": first["rows"], "failed": first["failed"], "seconds": first["seconds"],
                    "images_per_second": first["images_per_second"], "largest_process_mb": watch.largest // 10**6,
                    "again_seconds": again["seconds"], "again_described": again["described"],
                    "queries": args.queries, **found(config.index, args.queries)}  # fmt: skip
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
