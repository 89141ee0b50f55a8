"""Known changes on the ground, found by `jobs.changes` among seasons, light and sensors that change as well.

Scenes of the same made ground are indexed along the grid: a summer, a winter, and the next summer by another sensor
(other pixels, another reference system, moved by a part of a pixel). Into some cells of the last one something is
drawn: a building with its shadow, or ground of another picture. The other cells are without a change.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import rasterio
from pyproj import Transformer
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from sklearn.metrics import average_precision_score

from jobs.changes import changes
from jobs.demo.scenes import write_archive
from jobs.index import index_archive
from jobs.indexing.options import IndexConfig
from rsir_core.arrays import Doubles, Pixels
from rsir_core.geo.cells import CRS, bounds_of
from rsir_core.imagery.decode import read_picture
from rsir_core.index.index import Index

PICTURE = 256  # pixels of a metre, a side
UTM = "EPSG:32633"
PLACE = Affine(1, 0, 500_000, 0, -1, 5_000_000)
OTHER_UTM = "EPSG:32632"  # the neighbouring zone, in which everything is turned by some degrees
KINDS = ("building", "clearing")


def mosaic(pictures: Sequence[str], side: int, rng: np.random.Generator) -> Pixels:
    """Draw a ground of side × side pixels from pictures side by side."""
    ground = np.zeros((side, side, 3), np.uint8)
    for y in range(0, side, PICTURE):
        for x in range(0, side, PICTURE):
            found = read_picture(pictures[int(rng.integers(len(pictures)))]).pixels[:PICTURE, :PICTURE]
            part = ground[y : y + found.shape[0], x : x + found.shape[1]]
            part[:] = found[: part.shape[0], : part.shape[1]]
    return ground


def seen(ground: Pixels, winter: float, rng: np.random.Generator) -> Pixels:
    """Show the ground on a day: season (of what is green), light, haze that differs from place to place, and noise."""
    day = ground.astype(np.float32)
    green = (day[..., 1] > day[..., 0]) & (day[..., 1] > day[..., 2])
    day[green] *= 1 + winter * np.array([0.35, -0.1, 0.1], np.float32)
    coarse = rng.normal(0, 6, (8, 8)).astype(np.float32)
    haze = np.kron(coarse, np.ones((-(-len(ground) // 8),) * 2, np.float32))[: len(ground), : len(ground), None]
    day = day * rng.uniform(0.8, 1.1, 3).astype(np.float32) + rng.uniform(-10, 15) + haze
    pixels: Pixels = (day + rng.normal(0, 3, day.shape)).clip(0, 255).astype(np.uint8)
    return pixels


def draw(ground: Pixels, kind: str, centre: tuple[int, int], rng: np.random.Generator) -> None:
    """Draw a change into the ground, in place."""
    x, y = centre
    if kind == "building":
        width, height = rng.integers(30, 70, 2)
        left, top = x - width // 2, y - height // 2
        ground[top + 6 : top + height + 6, left + 6 : left + width + 6] //= 3  # its shadow
        ground[top : top + height, left : left + width] = rng.integers(120, 250, 3)
        return
    side = int(rng.integers(90, 150))
    from_x, from_y = rng.integers(0, len(ground) - side, 2)
    patch = ground[from_y : from_y + side, from_x : from_x + side].copy()
    ground[y - side // 2 : y - side // 2 + side, x - side // 2 : x - side // 2 + side] = patch


def write(file: Path, pixels: Pixels, sensor: bool) -> None:
    """Write a scene; of another sensor if asked for: 1.3 m, in the neighbouring zone, moved by 0.4 m."""
    samples, side = pixels.transpose(2, 0, 1), len(pixels)
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "count": 3, "tiled": True, "compress": "deflate"}
    if not sensor:
        with rasterio.open(file, "w", **profile, height=side, width=side, crs=UTM, transform=PLACE) as scene:
            scene.write(samples)
        return
    corners = np.array([(0, 0), (side, 0), (0, side), (side, side)])
    x, y = Transformer.from_crs(UTM, OTHER_UTM, always_xy=True).transform(
        PLACE.c + corners[:, 0], PLACE.f - corners[:, 1]
    )
    place = Affine(1.3, 0, x.min() + 0.4, 0, -1.3, y.max() + 0.4)
    height, width = int(np.ptp(y) / 1.3), int(np.ptp(x) / 1.3)
    warped = np.zeros((3, height, width), np.uint8)
    reproject(samples, warped, src_crs=UTM, src_transform=PLACE, dst_crs=OTHER_UTM, dst_transform=place,
              resampling=Resampling.average)  # fmt: skip
    with rasterio.open(
        file, "w", **profile, height=height, width=width, crs=OTHER_UTM, transform=place, nodata=0
    ) as scene:
        scene.write(warped)


def inner_cells(index: Index) -> list[str]:
    """List the cells that all scenes show wholly."""
    rows = index.features(columns=["cell", "covered"]).to_pylist()
    counts: dict[str, int] = {}
    for row in rows:
        if row["covered"] is not None and row["covered"] > 0.999:
            counts[row["cell"]] = counts.get(row["cell"], 0) + 1
    return sorted(cell for cell, n in counts.items() if n == max(counts.values()))


def centre_of(cell: str) -> Doubles:
    """Return the middle of a cell in pixels of the ground."""
    left, bottom, right, top = bounds_of(cell)
    x, y = Transformer.from_crs(CRS, UTM, always_xy=True).transform((left + right) / 2, (bottom + top) / 2)
    return np.array([x - PLACE.c, PLACE.f - y])


def main(argv: Sequence[str] | None = None) -> None:
    """Make the ground, see it on three days, index, and compare what is found with what was drawn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--images", help="folder of JPEGs to make the ground of; default: drawn ones")
    parser.add_argument("--zoom", type=int, default=17)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--changed", type=float, default=0.06, help="share of the cells")
    parser.add_argument("--components", type=int, default=19)
    parser.add_argument("--last", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="folder for what is made")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measure(args, Path(args.keep or temporary))))


def measure(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Run all of it in a folder."""
    rng = np.random.default_rng(args.seed)
    if args.images is None:
        write_archive(root / "drawn", 4, seed=args.seed)
    pictures = [str(file) for file in sorted(Path(args.images or root / "drawn").rglob("*.jpg"))]
    ground, archive = mosaic(pictures, args.side, rng), root / "archive"
    archive.mkdir(parents=True)
    write(archive / "a_20230615.tif", seen(ground, 0, rng), sensor=False)
    write(archive / "a_20231215.tif", seen(ground, 1, rng), sensor=False)
    config = IndexConfig(archive=str(archive), models="frozen:efficientnet_lite0", image_size=args.image_size,
                         index=str(root / "index"), grid=args.zoom, tile=256,
                         components=args.components)  # fmt: skip
    index_archive(config)
    cells = inner_cells(Index(config.index))
    cells = [cell for cell in cells if min(c := centre_of(cell)) > 130 and max(c) < args.side - 130]
    drawn = {str(cell): KINDS[i % 2] for i, cell in enumerate(
        rng.choice(cells, max(2, round(args.changed * len(cells))), replace=False))}  # fmt: skip
    for cell, kind in drawn.items():
        x, y = centre_of(cell) + rng.uniform(-20, 20, 2)
        draw(ground, kind, (int(x), int(y)), rng)
    write(archive / "b_20240615.tif", seen(ground, 0.2, rng), sensor=True)
    summary = index_archive(config)
    out = str(root / "changes.parquet")
    found = changes(changes.options(index=config.index, out=out, last=args.last))
    rows = [row for row in pq.read_table(out).to_pylist() if row["time"].year == 2024]
    is_drawn = np.array([row["cell"] in drawn for row in rows])
    called = np.array([bool(row["changed"]) for row in rows])
    score = np.array([row["distance"] / (row["threshold"] or 1) for row in rows])
    recall = {
        kind: float(np.mean([row["changed"] for row in rows if drawn.get(row["cell"]) == kind])) for kind in KINDS
    }
    return {
        "tiles": summary["rows"], "places": len(rows), "drawn": int(is_drawn.sum()), "called": found["changed"],
        "precision": float(is_drawn[called].mean()) if called.any() else None,
        "recall": float(called[is_drawn].mean()),
        **{f"recall_{kind}": value for kind, value in recall.items()},
        "false_alarms": float(called[~is_drawn].mean()),
        "average_precision": float(average_precision_score(is_drawn, score)),
    }  # fmt: skip


if __name__ == "__main__":
    main()
