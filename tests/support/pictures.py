"""Strips of real pictures, for tests of what shows them."""

from pathlib import Path

import numpy as np
from PIL import Image

from rsir_core.evaluation.gallery import GalleryImage, GalleryRow
from rsir_core.models.regions import Box, Region

HEIGHT, WIDTH = 60, 80


def some_strip(folder: Path, label: str, right: list[bool], way: str = "the method") -> GalleryRow:
    """A query and its results; the first one's region is all of it, every second has an object."""
    rng, shown = np.random.default_rng(0), []
    for i in range(1 + len(right)):
        file = folder / f"{i}.png"
        if not file.exists():
            Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(file)
        region = Region(10 * (i > 0), 0, WIDTH - 10 * (i > 0), HEIGHT)
        box = Box(20, 30, 40, 50) if i % 2 else None
        name = label if i == 0 or right[i - 1] else f"not {label}"
        shown.append(GalleryImage(str(file), region, box, name, 0.75, 0.01 * i))
    return GalleryRow(label, "a note", way, "WD", shown[0], shown[1:], right)
