"""Propose boxes for an archive of class folders: `python -m jobs.propose_boxes --archive A --models M --out DIR`.

Weakly supervised localisation: a training image's box encloses what the activation map of its class highlights (Zhou et
al. 2016, section 3.2). Test images are not used.
"""

import io
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import torch
from PIL import Image, ImageDraw

from jobs.boxes.options import ProposeBoxesConfig
from jobs.command import Summary
from jobs.pipeline.cluster import joined
from jobs.pipeline.rows import tables_of
from jobs.pipeline.stage import Stage, build_dataset
from rsir_core import schemas
from rsir_core.archive.labels import read_split
from rsir_core.archive.listing import list_images
from rsir_core.arrays import Pixels
from rsir_core.boxes.writing import ImageToWrite, check_names, new_folder, write_boxes
from rsir_core.errors import ConfigError, LabelError
from rsir_core.evaluation.labelled_rows import match
from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.reading import Reading, images_of, listing_of
from rsir_core.models.bundle import SPLIT, load_bundle
from rsir_core.models.cam import ActivationMaps, boxes_of
from rsir_core.models.regions import Box

log = logging.getLogger("jobs.propose_boxes")
# Factor on the side that the classifier was trained with. At 1 its last map has 7 × 7 places, and neighbouring tanks of
# UC Merced shared one box; at 2 each had its own.
ENLARGEMENT: Final = 2
PEAK: Final = 0.7  # share of the strongest activation that further objects must reach
IMAGES_SHOWN: Final = 6  # per class, on the picture of proposals
CLASSES_SHOWN: Final = 100  # at most, since a JPEG has at most 65,500 pixels a side
SIDE: Final = 160  # pixels of each image shown
FOUND: Final = pa.schema(
    [
        ("image", pa.int64()),  # its place in the list
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("boxes", pa.list_(pa.list_(pa.float64(), 4))),
        ("message", pa.string()),  # null: it was read
    ]
)


class ProposeStage:
    """Stage work: propose boxes for the known class of each image."""

    def __init__(self, models: str, threshold: float, device: str) -> None:
        torch.set_num_threads(1)
        bundle = load_bundle(models)
        settings = replace(bundle.classifier, image_size=ENLARGEMENT * bundle.classifier.image_size)
        self.threshold = threshold
        self.maps = ActivationMaps(settings, bundle.classifier_state, device)

    def __call__(self, read: pa.Table) -> pa.Table:
        """Propose boxes for read rows with columns `image` and `place` (number of the class), to schema `FOUND`."""
        good, bad = read.filter(read["pixels"].is_valid()), read.filter(read["pixels"].is_null())
        found = [
            self._propose(pixels, image, place)
            for pixels, image, place in zip(images_of(good), good["image"], good["place"], strict=True)
        ]
        failed = bad.select(["image", schemas.MESSAGE]).to_pylist()
        return pa.Table.from_pylist([*found, *failed], FOUND)

    def _propose(self, pixels: Pixels, image: pa.Scalar, place: pa.Scalar) -> dict[str, Any]:
        height, width = pixels.shape[:2]
        (activation,) = self.maps.maps([pixels], [place.as_py()])
        boxes = [list(box) for box in boxes_of(activation, height, width, self.threshold, PEAK)]
        return {"image": image.as_py(), "height": height, "width": width, "boxes": boxes}


def propose_boxes(config: ProposeBoxesConfig) -> Summary:
    """Run the job: propose boxes for the training images, and write a data.yaml and a picture of some proposals.

    Raises:
        ConfigError: an invalid option.
        LabelError: no training image is in the archive, or none gets a box.
        WeightsError: the backbone has no activation maps.
    """
    began = time.monotonic()
    for name, value in (("threshold", config.threshold), ("val-fraction", config.val_fraction)):
        if not 0 < value < 1:
            raise ConfigError(f"--{name} is {value}; it must lie between 0 and 1")
    new_folder(config.out)  # whatever is in its way is found before anything is proposed
    bundle = load_bundle(config.models)
    ActivationMaps(bundle.classifier, bundle.classifier_state)  # fails here if the backbone has none
    images = _training_images(config, bundle.classes)
    check_names(image_id for image_id, _, _ in images)
    found = _propose(config, images).to_pylist()
    proposed: list[ImageToWrite] = []
    for (image_id, uri, place), row in zip(images, found, strict=True):
        if row["message"] is not None:
            log.warning("left out: %s", row["message"])
        elif row["boxes"]:
            boxes = [(place, Box(*edges)) for edges in row["boxes"]]
            proposed.append(ImageToWrite(uri, image_id, (row["height"], row["width"]), boxes))
    count = round(len(proposed) * config.val_fraction)
    if not 0 < count < len(proposed):
        raise LabelError(
            f"{len(proposed)} of {len(images)} training images have a box: too few to train and judge by "
            f"--val-fraction {config.val_fraction}; pass another, or a larger archive"
        )
    val = set(random.Random(config.seed).sample(range(len(proposed)), count))  # noqa: S311 -- a draw, no secret
    splits = {name: [p for i, p in enumerate(proposed) if (i in val) == (name == "val")] for name in ("train", "val")}
    data = write_boxes(
        config.out, bundle.classes, splits, {"proposals.jpg": _draw(proposed, bundle.classes, config.max_pixels)}
    )
    return {
        "data": str(data),
        "classes": len(bundle.classes),
        **{f"{name}_images": len(members) for name, members in splits.items()},
        "boxes": sum(len(image.objects) for image in proposed),
        "without_box": sum(row["message"] is None for row in found) - len(proposed),
        "failed": sum(row["message"] is not None for row in found),
        "seconds": round(time.monotonic() - began, 1),
    }


def _training_images(config: ProposeBoxesConfig, classes: Sequence[str]) -> list[tuple[str, str, int]]:
    """List image id, URI in the archive and place of the class of each training image."""
    files = sorted(list_images(config.archive), key=lambda file: file.image_id)
    listing = pa.table({schemas.URI: [f.uri for f in files], schemas.IMAGE_ID: [f.image_id for f in files]})
    split = f"{config.models.rstrip('/')}/{SPLIT}"
    labels = {image.uri: image.label for image in read_split(split) if image.split == "train"}
    known = match(list(labels), listing)
    if not known:
        raise LabelError(
            f"none of the {len(labels)} training images of {split} is in {config.archive}; give the archive that the "
            "classifier was trained on"
        )
    chosen = sorted((place, classes.index(labels[uri])) for uri, place in known.items())
    return [(files[place].image_id, files[place].uri, name) for place, name in chosen]


def _propose(config: ProposeBoxesConfig, images: Sequence[tuple[str, str, int]]) -> pa.Table:
    """Propose boxes as rows of schema `FOUND`, in the order of the images."""
    _, uris, places = zip(*images, strict=True)
    listing = listing_of(uris, image=range(len(images)), place=places)
    stage = Stage(Reading.of(config), ProposeStage, (config.models, config.threshold))
    with joined(config.address, config.needs, config.verbose):
        return pa.concat_tables(tables_of(build_dataset(stage, config, listing))).sort_by("image")


def _draw(proposed: Sequence[ImageToWrite], classes: Sequence[str], max_pixels: int) -> bytes:
    """Draw a JPEG with a row for each class that has some, of its first images with their boxes."""
    shown = sorted({image.objects[0][0] for image in proposed})[:CLASSES_SHOWN]
    sheet = Image.new("RGB", (IMAGES_SHOWN * SIDE, len(shown) * SIDE), "white")
    drawn: Counter[int] = Counter()
    for image in proposed:
        place = image.objects[0][0]
        if place not in shown or drawn[place] == IMAGES_SHOWN:
            continue
        picture = Image.fromarray(read_picture(image.uri, max_pixels).pixels).resize((SIDE, SIDE))
        draw = ImageDraw.Draw(picture)
        x, y = SIDE / image.size[1], SIDE / image.size[0]
        for _, box in image.objects:
            draw.rectangle((box.x0 * x, box.y0 * y, box.x1 * x - 1, box.y1 * y - 1), outline="red", width=2)
        draw.text((4, 2), classes[place], fill="yellow")
        sheet.paste(picture, (drawn[place] * SIDE, shown.index(place) * SIDE))
        drawn[place] += 1
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=85)
    return out.getvalue()
