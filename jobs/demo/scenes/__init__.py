"""The demo's archive: small aerial-like scenes of fourteen classes, drawn from a seed, with the boxes of their objects.

The classes share much of what is in them (trees, cars, houses, roads, bare ground, water), so that retrieval over them
is neither trivial nor hopeless.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image

from jobs.demo.scenes import nature, town
from jobs.demo.scenes.canvas import SIDE, Canvas, Frame
from jobs.demo.scenes.objects import OBJECT_CLASSES
from rsir_core.arrays import Pixels
from rsir_core.boxes.writing import label_line
from rsir_core.models.regions import Box

__all__ = ["CLASSES", "OBJECT_CLASSES", "SIDE", "Scene", "draw_scene", "write_archive", "write_boxes"]

_SCENES: dict[str, Callable[[Canvas, Frame], None]] = {
    "airport": town.airport,
    "baseball_diamond": town.baseball_diamond,
    "beach": nature.beach,
    "dense_residential": town.dense_residential,
    "farmland": nature.farmland,
    "forest": nature.forest,
    "harbor": town.harbor,
    "intersection": town.intersection,
    "overpass": town.overpass,
    "parking_lot": town.parking_lot,
    "river": nature.river,
    "sparse_residential": town.sparse_residential,
    "storage_tanks": town.storage_tanks,
    "tennis_courts": town.tennis_courts,
}
CLASSES: tuple[str, ...] = tuple(_SCENES)
_OF_OBJECTS = ("airport", "baseball_diamond", "dense_residential", "harbor", "storage_tanks", "tennis_courts")


class Scene(NamedTuple):
    """Hold one drawn image and its objects."""

    pixels: Pixels  # SIDE×SIDE×3, RGB
    boxes: list[tuple[Box, str]]  # every visible object and its name, of OBJECT_CLASSES


def draw_scene(name: str, rng: np.random.Generator) -> Scene:
    """Draw a scene of the class `name`; the same generator state draws the same scene.

    Raises:
        KeyError: no class of that name.
    """
    canvas = Canvas(rng)
    middle = Frame(rng.normal(SIDE / 2, 12), rng.normal(SIDE / 2, 12), rng.uniform(0, 2 * math.pi))
    _SCENES[name](canvas, middle)
    return Scene(canvas.photograph(), canvas.boxes)


def write_archive(folder: Path, per_class: int, seed: int) -> None:
    """Draw `per_class` scenes of every class into folders named after the classes: JPEGs, every tenth a PNG."""
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            scene = draw_scene(name, np.random.default_rng((seed, number, i)))
            file = folder / name / f"{name}{i:03d}"
            if i % 10 == 9:
                Image.fromarray(scene.pixels).save(file.with_suffix(".png"))
            else:
                Image.fromarray(scene.pixels).save(file.with_suffix(".jpg"), quality=92)


def write_boxes(folder: Path, count: int, seed: int) -> Path:
    """Draw `count` scenes with their objects' boxes, a fifth for validation; returns their `data.yaml`.

    Classes take turns, those with objects of their own twice as often. The scenes are others than `write_archive`'s.
    """
    turns = [*CLASSES, *_OF_OBJECTS]
    for i in range(count):
        scene = draw_scene(turns[i % len(turns)], np.random.default_rng((seed, len(CLASSES), i)))
        part = "val" if (i + i // len(turns)) % 5 == 4 else "train"  # shifted every turn: each class comes into both
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.pixels).save(folder / "images" / part / f"{i:05d}.jpg", quality=92)
        lines = [label_line(OBJECT_CLASSES.index(name), box, (SIDE, SIDE)) for box, name in scene.boxes]
        (folder / "labels" / part / f"{i:05d}.txt").write_text("".join(lines))
    data = {
        "path": str(folder.resolve()),
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(OBJECT_CLASSES)),
    }
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return file
