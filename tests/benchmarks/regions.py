"""Precision of a search for an object: by the whole image, by the box alone, and among regions of objects.

Every object that is asked with is a query: a box on its image, with which other images that show its class are looked
for. The archive's regions are made of its annotated boxes, as a perfect detector finds them. `--noise` is the share
of boxes that are replaced by boxes anywhere, and how far all are moved and scaled. Everything else is what `jobs.index
--regions` and a search with `box` do, with a frozen backbone.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from rsir_core.arrays import Floats, Ints, Mask, Pixels
from rsir_core.boxes.formats import NWPU_CLASSES, MarkedObject, read_nwpu
from rsir_core.models.describe import Describer
from rsir_core.models.frozen import frozen_bundle
from rsir_core.models.pca import Moments, Pca
from rsir_core.models.regions import LEAST_SIDE, MARGIN, Box, Region, key_region, object_region, whole_image
from rsir_core.retrieval.object_partition import best_of_images
from rsir_core.search.exact import Hits, Searcher

DIMENSIONS: Final = 19
TOP: Final = 10  # results that precision is measured at
TOGETHER: Final = 64  # regions described at once
ARMS: Final = (
    "whole image",
    "key region around the box",
    "box among key regions",
    "box among objects",
    "box among all",
)


@dataclass(frozen=True)
class Scene:
    """An image with its annotated objects."""

    pixels: Pixels
    objects: list[MarkedObject]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_scenes(folder: Path, names: Sequence[str]) -> list[Scene]:
    """Images of NWPU VHR-10 by their numbers."""
    scenes = []
    for name in names:
        (file,) = (folder / "positive_image_set").glob(f"{name}.*")
        pixels = np.asarray(Image.open(file).convert("RGB"))
        size = pixels.shape[1], pixels.shape[0]
        scenes.append(Scene(pixels, list(read_nwpu(folder / "ground_truth" / f"{name}.txt", size, NWPU_CLASSES))))
    return scenes


def draw_scenes(count: int) -> list[Scene]:
    """Grey pictures with squares and bars, for a run without data."""
    rng, scenes = np.random.default_rng(0), []
    for _ in range(count):
        pixels, objects = rng.integers(90, 130, (160, 160, 3)).astype(np.uint8), []
        for name in rng.choice(NWPU_CLASSES[:2], 3):
            (x, y), (w, h) = rng.integers(0, 120, 2).tolist(), (24, 24) if name == NWPU_CLASSES[0] else (30, 8)
            pixels[y : y + h, x : x + w] = (250, 40, 40)
            objects.append(MarkedObject(str(name), Box(x, y, x + w, y + h), "drawn"))
        scenes.append(Scene(pixels, objects))
    return scenes


def detected(scene: Scene, most: int, noise: float, rng: np.random.Generator) -> list[Box]:
    """What a detector would find of a scene: the annotated boxes, or these with faults."""
    boxes: list[Box] = []
    height, width = scene.size
    for found in scene.objects:
        x0, y0, x1, y1 = found.box
        if rng.random() < noise:
            w, h = x1 - x0, y1 - y0
            x0, y0 = rng.uniform(0, max(width - w, 1)), rng.uniform(0, max(height - h, 1))
            x1, y1 = x0 + w, y0 + h
        shift, scale = rng.normal(0, noise / 2, 2), np.exp(rng.normal(0, noise / 2))
        w, h = (x1 - x0) * scale, (y1 - y0) * scale
        x, y = (x0 + x1) / 2 + shift[0] * w, (y0 + y1) / 2 + shift[1] * h
        boxes.append(Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return [boxes[i] for i in rng.permutation(len(boxes))[:most]]


class Regions:
    """Embeddings of regions of several images."""

    def __init__(self, describer: Describer, scenes: Sequence[Scene], chosen: Sequence[Sequence[Region]]) -> None:
        flat = [(scene.pixels, region) for scene, regions in zip(scenes, chosen, strict=True) for region in regions]
        began, parts = time.perf_counter(), []
        for start in range(0, len(flat), TOGETHER):
            pixels, regions = zip(*flat[start : start + TOGETHER], strict=True)
            parts.append(describer.describe_regions(pixels, regions).embedding.astype(np.float32))
        self.seconds = time.perf_counter() - began
        self.embedding: Floats = np.concatenate(parts)
        counts = [len(regions) for regions in chosen]
        self.image: Ints = np.repeat(np.arange(len(scenes)), counts)
        self.number: Ints = np.concatenate([np.arange(n) for n in counts])


class Rows:
    """Rows of regions that are searched exactly, each image once."""

    def __init__(self, regions: Sequence[Regions], pca: Pca) -> None:
        image, number = (np.concatenate([getattr(r, name) for r in regions]) for name in ("image", "number"))
        feature = pca.transform(np.concatenate([r.embedding for r in regions]))
        ids = [f"{i:06}" for i in image]
        order, self._searcher = Searcher.of(ids, feature, np.empty((len(ids), 0), np.float32))
        self._image, self._number = image[order], number[order]
        self.pca, self.count, self.seconds, self.queries = pca, len(ids), 0.0, 0

    def first(self, feature: Floats, own: int, k: int = TOP) -> Ints:
        """The k images nearest to a query, without its own."""
        began = time.perf_counter()

        def search(n: int) -> Hits:
            return self._searcher.search(feature, np.empty(0, np.float32), n, euclidean=True)

        hits = best_of_images(search, self._image, self._number, k + 1, "distance")
        self.seconds, self.queries = self.seconds + time.perf_counter() - began, self.queries + 1
        images: Ints = self._image[hits.rows]
        found: Ints = images[images != own][:k]
        return found


def measure(scenes: Sequence[Scene], args: argparse.Namespace) -> dict[str, Any]:
    """Ask with every object, at most so many of an image, in every way."""
    rng, describer = np.random.default_rng(0), Describer(frozen_bundle("efficientnet_lite0", None))
    asked = [[s.objects[i] for i in rng.permutation(len(s.objects))[: args.queries]] for s in scenes]

    def around(scene: Scene, boxes: Sequence[Box]) -> list[Region]:
        return [object_region(*scene.size, box, args.margin, args.least) for box in boxes]

    whole = Regions(describer, scenes, [[whole_image(*scene.size)] for scene in scenes])
    found = [around(scene, detected(scene, args.regions - 1, args.noise, rng)) for scene in scenes]
    objects = Regions(describer, scenes, found)
    boxes = Regions(describer, scenes, [around(s, [o.box for o in of]) for s, of in zip(scenes, asked, strict=True)])
    keys = Regions(
        describer, scenes, [[key_region(*s.size, o.box) for o in of] for s, of in zip(scenes, asked, strict=True)]
    )
    without = Moments.of(whole.embedding).fit(min(DIMENSIONS, len(scenes) - 1))  # as an index of key regions has it
    pca = Moments.of(np.concatenate([whole.embedding, objects.embedding])).fit(min(DIMENSIONS, len(scenes) - 1))
    rows = {"scenes": Rows([whole], without), "objects": Rows([objects], pca), "all": Rows([whole, objects], pca)}
    arms = {
        ARMS[0]: (whole.embedding[boxes.image], rows["scenes"]),
        ARMS[1]: (keys.embedding, rows["scenes"]),
        ARMS[2]: (boxes.embedding, rows["scenes"]),
        ARMS[3]: (boxes.embedding, rows["objects"]),
        ARMS[4]: (boxes.embedding, rows["all"]),
    }
    shows = np.array([[any(o.name == name for o in s.objects) for name in NWPU_CLASSES] for s in scenes])
    queries = [o for of in asked for o in of]
    kind = np.array([NWPU_CLASSES.index(o.name) for o in queries])
    share = np.array([area_share(o, scenes[i]) for o, i in zip(queries, boxes.image, strict=True)])
    subsets = {"all objects": share >= 0, "small objects": share < args.small}
    precision: dict[str, dict[str, float]] = {name: {} for name in subsets}
    same: dict[str, float] = {}
    baseline: list[Ints] = []
    for name, (embedding, of) in arms.items():
        feature = of.pca.transform(embedding)
        first = [of.first(feature[i], int(own)) for i, own in enumerate(boxes.image)]
        baseline = baseline or first
        right = np.array([shows[images, c].mean() for images, c in zip(first, kind, strict=True)])
        for subset, members in subsets.items():
            precision[subset][name] = mean(right, members)
        same[name] = float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(first, baseline, strict=True)]))
    chance = mean(np.array([shows[:, c].mean() for c in kind]), subsets["small objects"])
    return {
        "images": len(scenes),
        "queries": {name: int(members.sum()) for name, members in subsets.items()},
        "precision_at_10": precision,
        "chance_small_objects": chance,
        "of_10_same_as_whole_image": {name: round(n, 1) for name, n in same.items()},
        "rows": {name: of.count for name, of in rows.items()},
        "search_ms": {name: round(1000 * of.seconds / of.queries, 3) for name, of in rows.items()},
        "describe_seconds": {"scenes": round(whole.seconds, 1), "objects": round(objects.seconds, 1)},
        "margin": args.margin,
        "least": args.least,
    }


def area_share(found: MarkedObject, scene: Scene) -> float:
    """The share of an image that an object's box takes."""
    box, (height, width) = found.box, scene.size
    return (box.x1 - box.x0) * (box.y1 - box.y0) / (height * width)


def mean(values: Floats, members: Mask) -> float:
    """In percent."""
    return round(100 * float(values[members].mean()), 1) if members.any() else 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """All ways, by the same objects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder of NWPU VHR-10; default: a few pictures are drawn")
    parser.add_argument("--list", default="test", help="which of its lists: train or test")
    parser.add_argument("--images", type=int, default=1000, help="how many of them at most")
    parser.add_argument("--queries", type=int, default=3, help="objects of each image that are asked with, at most")
    parser.add_argument("--regions", type=int, default=8, help="of each image: the whole one, and those of objects")
    parser.add_argument("--noise", type=float, default=0.0, help="how far the archive's boxes are from the annotated")
    parser.add_argument(
        "--margin", type=float, default=MARGIN, help="of an object's region, in longer sides of its box"
    )
    parser.add_argument("--least", type=int, default=LEAST_SIDE, help="pixels: least side of an object's region")
    parser.add_argument("--small", type=float, default=0.02, help="share of the image up to which an object is small")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.data is None:
        scenes = draw_scenes(min(args.images, 12))
    else:
        names = (Path(args.data) / "image_set" / f"{args.list}.txt").read_text().split()
        scenes = read_scenes(Path(args.data), np.random.default_rng(0).permutation(names)[: args.images].tolist())
    print(json.dumps(measure(scenes, args)))


if __name__ == "__main__":
    main()
