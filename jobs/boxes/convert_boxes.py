"""Convert boxes: `python -m jobs.convert_boxes --format coco --images DIR --boxes FILE --out DIR` makes a data.yaml."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from jobs.boxes.options import ConvertBoxesConfig
from jobs.command import Summary
from rsir_core.archive.file_names import composed
from rsir_core.archive.listing import EXTENSIONS
from rsir_core.boxes.data import image_size
from rsir_core.boxes.find_files import NamedFiles
from rsir_core.boxes.folder_objects import Marked, read_coco_files, read_label_files
from rsir_core.boxes.formats import LABEL_FORMATS, NWPU_CLASSES, MarkedObject
from rsir_core.boxes.polygons import around, clipped
from rsir_core.boxes.splits import SPLITS, split_images
from rsir_core.boxes.writing import EDGE, ImageToWrite, local_path, write_boxes
from rsir_core.boxes.yolo import read_lines
from rsir_core.errors import ConfigError, LabelError
from rsir_core.models.regions import Box

log = logging.getLogger("jobs.convert_boxes")
SLIVER: Final = 0.5  # pixels; what is left of a box at the edge and is narrower says nothing of its object
EMPTY: Final = Box(0.0, 0.0, 0.0, 0.0)


def convert_boxes(config: ConvertBoxesConfig) -> Summary:
    """Read, check, split and write.

    Raises:
        ConfigError: a setting that cannot be.
        LabelError: what the format does not allow, a box outside its image, or a class that is not known.
    """
    given = _checked_classes(config)
    for option in ("images", "boxes", "out"):
        local_path(f"--{option}", getattr(config, option))
    images = NamedFiles(config.images, EXTENSIONS)
    drop = config.unmatched == "drop"
    coco = read_coco_files(config.boxes, images, drop) if config.format == "coco" else None
    places = {split: getattr(config, split) for split in SPLITS}
    shares = {"val": config.val_fraction, "test": config.test_fraction}
    splits = split_images(images, sorted(coco.marked) if coco else images.names, places, shares, config.seed)
    members = [name for split in SPLITS for name in splits[split]]
    sizes = {name: image_size(str(images.path(name))) for name in members}
    found = coco or read_label_files(LABEL_FORMATS[config.format], config.boxes, images, sizes, given or (), drop)
    names = list(given or found.names)
    checked, counts = _check(config, names, found.marked, sizes)
    written = {
        split: [ImageToWrite(str(images.path(n).absolute()), n, sizes[n], checked[n]) for n in splits[split]]
        for split in SPLITS
    }
    _check_splits(written, names)
    return {
        "data": str(write_boxes(config.out, names, written)),
        "classes": len(names),
        **{f"{split}_images": len(written[split]) for split in SPLITS},
        **{f"{split}_boxes": sum(len(image.objects) for image in written[split]) for split in SPLITS},
        "images_without_boxes": sum(not objects for objects in checked.values()),
        "images_left_out": len(images.names) - len(members),
        "unmatched_labels": found.unmatched,
        **counts,
    }


def _checked_classes(config: ConvertBoxesConfig) -> tuple[str, ...] | None:
    """Return the class names that were given, or that the format has; None: use those that are found."""
    for name in ("val_fraction", "test_fraction"):
        if not 0 <= (share := getattr(config, name)) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {share}; it must be at least 0 and below 1")
    if config.classes is None:
        if config.format == "yolo":
            raise ConfigError("--classes is missing: yolo only numbers its classes; name them in that order")
        return NWPU_CLASSES if config.format == "nwpu" else None
    words = config.classes.split(",")
    with suppress(OSError):  # a list that is too long for a file's name
        words = read_lines(Path(config.classes)) if Path(config.classes).is_file() else words
    names = tuple(composed(word.strip()) for word in words if word.strip())
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"--classes {config.classes} names {', '.join(names) or 'nothing'}; name each class once")
    return names


def _check(
    config: ConvertBoxesConfig, names: Sequence[str], marked: Marked, sizes: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, list[tuple[int, Box]]], Mapping[str, int]]:
    """Check the boxes; return class and box of each image's objects, and counts of difficult, clipped and slivers."""
    places = {name: place for place, name in enumerate(names)}
    counts = Counter({"difficult": 0, "clipped": 0, "slivers": 0})
    checked: dict[str, list[tuple[int, Box]]] = {}
    for image, size in sizes.items():
        kept = checked[image] = []
        for found in marked[image]:
            counts["difficult"] += found.difficult
            if found.difficult and config.difficult == "drop":
                continue
            if found.name not in places:
                raise LabelError(
                    f"{found.where}: class {found.name!r} is not among {', '.join(names)}; "
                    "correct it, or add it to --classes"
                )
            box = _inside(found, size, config.clip)
            counts["clipped"] += box != found.box
            if box is None:
                counts["slivers"] += 1
            else:
                kept.append((places[found.name], box))
    return checked, counts


def _inside(found: MarkedObject, size: tuple[int, int], clip: bool) -> Box | None:
    """Cut a box off at the image's edge, if it reaches over it by less than a pixel or clipping is allowed.

    None: what cutting leaves of it is nothing to learn from.
    """
    (height, width), box = size, found.box
    inside = Box(max(box.x0, 0), max(box.y0, 0), min(box.x1, width), min(box.y1, height))
    if found.corners and inside != box:
        inside = around(clipped(found.corners, height, width)) or EMPTY
    over = max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)
    written = f"{found.where}: the box {box.x0:g},{box.y0:g} to {box.x1:g},{box.y1:g} of {found.name!r}"
    if not (inside.x0 < inside.x1 and inside.y0 < inside.y1):  # also where one is not a number
        raise LabelError(
            f"{written} is empty or outside its image of {width}×{height} pixels; correct it or take it out"
        )
    if over > EDGE and not clip:
        raise LabelError(
            f"{written} reaches outside its image of {width}×{height} pixels; "
            "correct it, or pass --clip to cut such boxes off at the edge"
        )
    narrow = min(inside.x1 - inside.x0, inside.y1 - inside.y0) < SLIVER
    return None if narrow and inside != box else inside


def _check_splits(written: Mapping[str, Sequence[ImageToWrite]], names: Sequence[str]) -> None:
    for split, members in written.items():
        found = {place for image in members for place, _ in image.objects}
        if members and not found:
            raise LabelError(
                f"none of the {len(members)} images of {split} has a box; give other lists or another --seed"
            )
        if members and (absent := [name for place, name in enumerate(names) if place not in found]):
            log.warning("%s has no box of %s", split, ", ".join(absent))
