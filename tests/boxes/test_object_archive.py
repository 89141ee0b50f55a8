"""The archive of objects that accuracy is measured on: nothing of one photograph on both sides of its split."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from rsir_core.boxes.formats import NWPU_CLASSES
from tests.support.object_archive import write_object_archive

BOX = (40, 10, 60, 20)
EDGE = (0, 0, 10, 30)


def test_each_object_is_cut_out_with_what_is_around_it(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "archive"
    for part in ("positive_image_set", "ground_truth"):
        (source / part).mkdir(parents=True)
    for i in range(8):
        pixels = np.zeros((60, 100, 3), np.uint8)
        pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
        Image.fromarray(pixels).save(source / f"positive_image_set/{i:03d}.jpg")
        lines = [f"({x0},{y0}),({x1},{y1}),{1 + i % 2}" for x0, y0, x1, y1 in (BOX, EDGE, EDGE)]
        (source / f"ground_truth/{i:03d}.txt").write_text("\n".join(lines) + "\n")
    write_object_archive(source, folder, per_class=5, seed=0)
    rows = list(csv.DictReader((folder / "split.csv").read_text().splitlines()))
    parts = ("train", "test")
    places = {part: {Path(row["uri"]).stem.split("-")[0] for row in rows if row["split"] == part} for part in parts}
    assert not places["train"] & places["test"] and all(places.values())
    assert max(Counter((row["split"], row["label"]) for row in rows).values()) == 5
    assert {row["label"] for row in rows} == {name.replace(" ", "_") for name in NWPU_CLASSES[:2]}
    assert list(csv.DictReader((folder / "training.csv").read_text().splitlines())) == [
        r for r in rows if r["split"] == "train"
    ]
    sizes = Counter[tuple[int, int]]()
    for row in rows:
        with Image.open(folder / "images" / row["uri"]) as crop:
            sizes[crop.size] += 1
            if crop.size == (32, 31):  # 16 pixels around the box's centre, as far as the image goes
                assert (np.asarray(crop)[:, :, 0] > 128).sum() == (BOX[2] - BOX[0]) * (BOX[3] - BOX[1])
    assert set(sizes) == {(32, 31), (28, 38)}
