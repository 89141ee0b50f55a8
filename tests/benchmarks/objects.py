"""What the representative object is worth: retrieval by key regions that are centred and sized in different ways.

Scenes are mosaics of a bundle's test images, of 2 × 2 and 3 × 3 tiles, of which one shows an object and gives the
label; images of NWPU VHR-10 with the class that takes most of each; and the test images as they are. In each set every
scene is a query once. Objects are found by the activation maps of the classifier, by a detector where there is one, and
by the true boxes.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from rsir_core.arrays import Doubles, Floats, Mask
from rsir_core.boxes.formats import NWPU_CLASSES
from rsir_core.evaluation.metrics import mpeg7_cutoff, score_ranked, score_retrieval
from rsir_core.models.bundle import load_bundle, read_detector
from rsir_core.models.describe import Describer
from rsir_core.models.detector import Detector
from rsir_core.models.pca import Moments
from rsir_core.models.regions import TAU, Box, Region, key_region, object_region, object_tau, whole_image
from rsir_core.search.distance import candidate_weights, classes, complements, distances, query_weights
from tests.benchmarks.regions import read_scenes
from tests.support.drawn_mosaics import draw_models, draw_regions
from tests.support.object_finders import WAYS, Boxes, Finders
from tests.support.object_scenes import BACKGROUNDS, OBJECTS, ObjectScene, make_mosaics, read_pixels

DIMENSIONS: Final = 19
TOGETHER: Final = 32  # regions described at once
TAUS: Final = (0.2, 0.35, 0.5, 0.7, 0.9)
LEAST_TAU: Final = 0.2  # of the rules that follow the object
OBJECTS_OF_IMAGE: Final = 3  # described besides the whole image
SETS: Final = ("mosaic2", "mosaic3", "nwpu", "plain")
Rows = tuple[Floats, Floats]  # embeddings and class probabilities


def tau_of(rule: float | str, scene: ObjectScene, box: Box | None, trained_side: int) -> float:
    """Compute the share of height and width that a key region takes.

    Args:
        rule: a fixed share; `object`, the size of the object with a margin; or `scale`, the same, but in pixels no
            smaller than the key region of a training image, see `object_tau`.
        scene: an image.
        box: its object; None: there is none, and the share is the paper's.
        trained_side: pixels of the images that the classifier was trained on.
    """
    if not isinstance(rule, str):
        return rule
    least = trained_side if rule == "scale" else round(LEAST_TAU / TAU * max(scene.size))
    return TAU if box is None else object_tau(*scene.size, box, least)


class Described:
    """Describe regions of scenes, each of them once."""

    def __init__(self, describer: Describer, scenes: Sequence[ObjectScene], views: int) -> None:
        self._describer, self._scenes, self._views = describer, scenes, views
        self._known: dict[tuple[int, Region], tuple[Floats, Floats]] = {}

    def __call__(self, places: Sequence[tuple[int, Region]]) -> Rows:
        """Describe regions, each given with the position of its scene: (n, D) and (n, C)."""
        new = [place for place in dict.fromkeys(places) if place not in self._known]
        for start in range(0, len(new), TOGETHER):
            part = new[start : start + TOGETHER]
            pixels, regions = [self._scenes[i].pixels for i, _ in part], [region for _, region in part]
            found = self._describer.describe_regions(pixels, regions, self._views)
            rows = zip(found.embedding.astype(np.float32), found.class_probabilities, strict=True)
            self._known.update(zip(part, rows, strict=True))
        embedding, p = zip(*(self._known[place] for place in places), strict=True)
        return np.stack(embedding), np.stack(p)


def score_regions(rows: Rows, image: Sequence[int], labels: Sequence[str], weighted: bool) -> tuple[float, float]:
    """Score retrieval of images by the nearest pair of their regions: mAP and ANMRR in percent.

    Args:
        rows: of the regions, those of an image together.
        image: of each region.
        labels: of the images.
        weighted: whether by the weighted distance.
    """
    feature, p = reduced(rows[0]), rows[1]
    if len(image) == len(labels):
        scores = score_retrieval(feature, p, labels, weighted)
        return percent(scores.map), percent(scores.anmrr)
    distance = distances(feature, feature)
    if weighted:
        complement, predicted = complements(p), classes(p)
        distance *= query_weights(complement, predicted) * candidate_weights(complement, predicted)
    starts = np.flatnonzero(np.diff(image, prepend=-1))
    nearest: Doubles = np.minimum.reduceat(np.minimum.reduceat(distance, starts, axis=0), starts, axis=1)
    np.fill_diagonal(nearest, np.inf)
    label = np.unique(labels, return_inverse=True)[1]
    relevant: Mask = label[:, None] == label
    np.fill_diagonal(relevant, False)
    count = relevant.sum(axis=1)
    asked, cutoff = count > 0, mpeg7_cutoff(count)
    order = np.argsort(nearest[asked], axis=1, kind="stable")
    ap, nmrr, _, _ = score_ranked(np.take_along_axis(relevant[asked], order, axis=1), cutoff[asked])
    return percent(float(ap.mean())), percent(float(nmrr.mean()))


def reduced(embedding: Floats) -> Floats:
    """Features by a PCA of these alone."""
    return Moments.of(embedding).fit(min(DIMENSIONS, *(n - 1 for n in embedding.shape))).transform(embedding)


def percent(share: float) -> float:
    """With two decimals."""
    return round(100 * share, 2)


def measure(
    scenes: Sequence[ObjectScene],
    found: Mapping[str, Boxes],
    described: Described,
    trained_side: int,
    taus: Sequence[float],
) -> dict[str, Any]:
    """Score every way to find objects and to size key regions, by both distances: mAP, ANMRR, mAP, ANMRR."""
    labels = [scene.label for scene in scenes]

    def scored(regions: Sequence[Sequence[Region]]) -> list[float]:
        places = [(i, region) for i, of_scene in enumerate(regions) for region in of_scene]
        rows, image = described(places), [i for i, _ in places]
        return [v for weighted in (True, False) for v in score_regions(rows, image, labels, weighted)]

    whole = [[whole_image(*scene.size)] for scene in scenes]
    result: dict[str, Any] = {"whole image": scored(whole)}
    centred: Boxes = [[] for _ in scenes]
    for name, boxes in {"image centre": centred, **found}.items():
        first = [next(iter(of_scene), None) for of_scene in boxes]
        rules: list[float | str] = [*taus, *(("object", "scale") if any(first) else ())]
        for rule in rules:
            regions = [
                [key_region(*scene.size, box, tau_of(rule, scene, box, trained_side))]
                for scene, box in zip(scenes, first, strict=True)
            ]
            result[f"{name}, {rule}"] = scored(regions)
        if any(first) and any(scene.boxes for scene in scenes):
            objects = [
                [object_region(*scene.size, box) for box in of_scene[:OBJECTS_OF_IMAGE]]
                for scene, of_scene in zip(scenes, boxes, strict=True)
            ]
            result[f"{name}, whole image and objects"] = scored([a + b for a, b in zip(whole, objects, strict=True)])
            result[f"{name}, objects"] = scored([b or a for a, b in zip(whole, objects, strict=True)])
    return result


def hits(scenes: Sequence[ObjectScene], boxes: Boxes) -> float:
    """Share of scenes whose representative object's centre lies in a true box, in percent."""
    right = [
        bool(of_scene) and any(b.x0 <= x < b.x1 and b.y0 <= y < b.y1 for b in scene.boxes)
        for scene, of_scene in zip(scenes, boxes, strict=True)
        for x, y in [of_scene[0].centre if of_scene else (0.0, 0.0)]
    ]
    return percent(float(np.mean(right)))


def sizes(scenes: Sequence[ObjectScene], boxes: Boxes) -> list[float]:
    """The quartiles of the share of height or width that the representative objects take."""
    shares = [
        max((of_scene[0].x1 - of_scene[0].x0) / scene.size[1], (of_scene[0].y1 - of_scene[0].y0) / scene.size[0])
        for scene, of_scene in zip(scenes, boxes, strict=True)
        if of_scene
    ]
    return [round(v, 2) for v in np.quantile(shares, (0.25, 0.5, 0.75)).tolist()] if shares else []


def nwpu_scenes(folder: Path, count: int) -> list[ObjectScene]:
    """Images of the test list, at most so many at random, each with the class whose objects take most of it."""
    scenes, names = [], (folder / "image_set" / "test.txt").read_text().split()
    for scene in read_scenes(folder, np.random.default_rng(0).permutation(names)[:count].tolist()):
        area = {name: sum(_area(o.box) for o in scene.objects if o.name == name) for name in NWPU_CLASSES}
        label = max(area, key=area.__getitem__)
        boxes = sorted((o.box for o in scene.objects if o.name == label), key=_area, reverse=True)
        scenes.append(ObjectScene(scene.pixels, label, boxes))
    return scenes


def _area(box: Box) -> float:
    return (box.x1 - box.x0) * (box.y1 - box.y0)


def make_sets(args: argparse.Namespace, images: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, list[ObjectScene]]]:
    """Make the sets of scenes that are asked for, one at a time.

    Args:
        args: of the command line.
        images: URIs of the test images, by class.
    """
    for name in args.sets.split(","):
        if name == "nwpu":
            yield name, nwpu_scenes(Path(args.data), args.images)
        elif name == "plain":
            chosen = [(c, uri) for c, uris in images.items() for uri in uris[: args.plain_per_class]]
            yield name, [ObjectScene(read_pixels(uri), c, []) for c, uri in chosen]
        else:
            objects = {c: images[c] for c in args.objects.split(",")}
            backgrounds = [uri for c in args.backgrounds.split(",") for uri in images[c]]
            yield name, make_mosaics(objects, backgrounds, int(name[-1]), args.per_class, args.seed)


def read_images(models: str) -> tuple[dict[str, list[str]], int]:
    """Read the test images of a bundle by class, and the median side of its training images."""
    test: dict[str, list[str]] = {}
    trained: list[str] = []
    with (Path(models) / "split.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            (trained if row["split"] == "train" else test.setdefault(row["label"], [])).append(row["uri"])
    return test, int(np.median([max(read_pixels(uri).shape) for uri in trained[:100]]))


def main(argv: Sequence[str] | None = None) -> None:
    """All sets."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.objects", description=__doc__)
    parser.add_argument("--models", help="bundle with split.csv, of class folders; default: one is drawn")
    parser.add_argument("--detector", help="bundle whose detector is tried; default: that of --models, if it has one")
    parser.add_argument("--data", help="folder of NWPU VHR-10, for the set nwpu")
    parser.add_argument("--sets", default="mosaic2,mosaic3", help=f"comma-separated, of {', '.join(SETS)}")
    parser.add_argument("--objects", default=",".join(OBJECTS), help="classes that stand for objects")
    parser.add_argument("--backgrounds", default=",".join(BACKGROUNDS), help="classes of the other tiles")
    parser.add_argument("--ways", default=",".join(WAYS), help="to find objects, comma-separated")
    parser.add_argument("--taus", default=",".join(map(str, TAUS)), help="fixed shares of height and width")
    parser.add_argument("--per-class", type=int, default=25, help="mosaics of each class of objects")
    parser.add_argument("--images", type=int, default=1000, help="of NWPU VHR-10, at most")
    parser.add_argument("--plain-per-class", type=int, default=1000, help="images of each class of the set plain")
    parser.add_argument("--views", type=int, default=1, help="rotations that are averaged")
    parser.add_argument("--threshold", type=float, default=0.5, help="share of a map's maximum that bounds an object")
    parser.add_argument("--seed", type=int, default=0, help="of the mosaics")
    parser.add_argument("--picture", help="JPEG to make of the first mosaic of each class")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if args.models is None:
            args.models = folder
            args.objects, args.backgrounds = draw_models(Path(folder))
        print(json.dumps(run(args)))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the sets that are asked for."""
    bundle, (images, trained_side) = load_bundle(args.models), read_images(args.models)
    detecting = read_detector(args.detector or args.models)
    detector = None if detecting is None else Detector(*detecting)
    finders = Finders(bundle, detector, args.objects.split(","), args.threshold)
    describer, result = Describer(bundle), {}
    taus = [float(tau) for tau in args.taus.split(",")]
    for name, scenes in make_sets(args, images):
        boxes = finders.find([scene.pixels for scene in scenes])
        found = {way: boxes[way] for way in args.ways.split(",") if way in boxes}
        if any(scene.boxes for scene in scenes):
            found["true box"] = [scene.boxes for scene in scenes]
        if args.picture and name.startswith("mosaic"):
            draw_regions(Path(args.picture.replace("{set}", name)), scenes, found)
        described = Described(describer, scenes, args.views)
        result[name] = {
            "images": len(scenes),
            "object_found": {way: hits(scenes, boxes) for way, boxes in found.items()},
            "object_sizes": {way: sizes(scenes, boxes) for way, boxes in found.items()},
            "scores": measure(scenes, found, described, trained_side, taus),
        }
    return {"models": args.models, "trained_side": trained_side, "sets": result}


if __name__ == "__main__":
    main()
