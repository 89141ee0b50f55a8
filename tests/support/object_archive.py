"""Make an archive of class folders from images with boxes: `python -m tests.support.object_archive --help`.

Each image is a place: all its objects train, or all test, since things beside each other look alike.
"""

import argparse
import csv
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from rsir_core.boxes.formats import NWPU_CLASSES, read_nwpu

CONTEXT: Final = 1.5  # side of a crop in longer sides of its box
LEAST: Final = 32  # pixels of a side
PARTS: Final = ("train", "test")


def write_object_archive(source: Path, folder: Path, per_class: int, seed: int) -> None:
    """Write one PNG per object of NWPU VHR-10 below `images`, and as CSVs `split` (all) and `training` (its half).

    Args:
        source: of the data set.
        folder: to write into.
        per_class: objects of a class, at most, in either half.
        seed: of the choice of places and objects.
    """
    rng, counts = np.random.default_rng(seed), Counter[tuple[str, str]]()
    rows: list[tuple[str, str, str]] = []
    files = sorted((source / "positive_image_set").glob("*.jpg"))
    for place, i in enumerate(rng.permutation(len(files))):
        part, file = PARTS[place % 2], files[i]
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        found = list(read_nwpu(source / "ground_truth" / f"{file.stem}.txt", image.size[::-1], NWPU_CLASSES))
        for number in rng.permutation(len(found)):
            label, box = found[number].name.replace(" ", "_"), found[number].box
            if counts[part, label] == per_class:
                continue
            counts[part, label] += 1
            side = max(CONTEXT * max(box.x1 - box.x0, box.y1 - box.y0), LEAST) / 2
            x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
            edges = (max(x - side, 0), max(y - side, 0), min(x + side, image.width), min(y + side, image.height))
            target = folder / "images" / label / f"{file.stem}-{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.crop(tuple(round(edge) for edge in edges)).save(target)
            rows.append((f"{label}/{target.name}", label, part))
    for name, wanted in (("split", PARTS), ("training", PARTS[:1])):
        with (folder / f"{name}.csv").open("w", newline="") as csv_file:
            writer = csv.writer(csv_file)
            writer.writerow(("uri", "label", "split"))
            writer.writerows(row for row in rows if row[2] in wanted)


def main() -> None:
    """Write an archive."""
    parser = argparse.ArgumentParser("python -m tests.support.object_archive", description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of NWPU VHR-10")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write images, split.csv and training.csv into"
    )
    parser.add_argument("--per-class", type=int, default=200, help="objects of a class, at most, in either half")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of places and objects")
    options = parser.parse_args()
    write_object_archive(options.source, options.out, options.per_class, options.seed)


if __name__ == "__main__":
    main()
