"""A bundle to try mosaics with where there is none, and pictures of the key regions in mosaics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from jobs.demo.scenes import draw_scene
from rsir_core.models.regions import TAU, Box, key_region
from tests.support.made_up import write_split
from tests.support.models import write_bundle
from tests.support.object_finders import Boxes
from tests.support.object_scenes import ObjectScene

COLOURS: Final = {"true box": "lime", "detector": "red", "object classes": "yellow", "unlike the rest": "cyan"}
SHOWN_SIDE: Final = 288  # pixels of each mosaic on a picture
COLUMNS: Final = 3
DRAWN: Final = {"airplane": "airport", "harbor": "harbor", "beach": "beach", "forest": "forest"}  # scene of each class


def draw_models(folder: Path, per_class: int = 4) -> tuple[str, str]:
    """Write an archive of drawn scenes, and a bundle of random weights that has its images in split.csv.

    Returns:
        Its classes of objects and of backgrounds, comma-separated.
    """
    rng = np.random.default_rng(0)
    train: dict[str, str] = {}
    test: dict[str, str] = {}
    for label, name in DRAWN.items():
        (folder / label).mkdir(parents=True)
        for i in range(2 * per_class):
            file = folder / label / f"{i}.png"
            Image.fromarray(draw_scene(name, rng).pixels).save(file)
            (train if i < per_class else test)[str(file)] = label
    write_bundle(folder)
    write_split(folder / "split.csv", test, train)
    return "airplane,harbor", "beach,forest"


def draw_regions(file: Path, scenes: Sequence[ObjectScene], found: Mapping[str, Boxes]) -> None:
    """Draw the first mosaic of each class with the representative objects by several ways, and the central key region.

    Args:
        file: JPEG to write.
        scenes: the mosaics.
        found: the objects of each by the name of the way, see `COLOURS`.
    """
    first = {scene.label: i for i, scene in reversed(list(enumerate(scenes)))}
    rows = -(-len(first) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SHOWN_SIDE, rows * SHOWN_SIDE), "white")
    for n, i in enumerate(first.values()):
        picture = Image.fromarray(scenes[i].pixels).resize((SHOWN_SIDE - 4, SHOWN_SIDE - 4))
        draw, scale = ImageDraw.Draw(picture), (SHOWN_SIDE - 4) / scenes[i].pixels.shape[0]
        x, y, width, height = key_region(*scenes[i].size, None, TAU)
        _outline(draw, Box(x, y, x + width, y + height), scale, "white")
        for way, colour in COLOURS.items():
            for box in found.get(way, [[]] * len(scenes))[i][:1]:
                _outline(draw, box, scale, colour)
        sheet.paste(picture, (n % COLUMNS * SHOWN_SIDE + 2, n // COLUMNS * SHOWN_SIDE + 2))
    sheet.save(file, quality=85)


def _outline(draw: ImageDraw.ImageDraw, box: Box, scale: float, colour: str) -> None:
    x0, y0, x1, y1 = (v * scale for v in box)
    draw.rectangle((x0 + 1, y0 + 1, max(x0 + 3, x1 - 2), max(y0 + 3, y1 - 2)), outline=colour, width=3)
