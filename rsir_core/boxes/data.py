"""Images with boxes for fine-tuning the detector: a data.yaml as ultralytics defines it, read and checked.

It is read here and not by ultralytics because that one rewrites JPEGs it finds damaged, runs the `download:` script of
a data.yaml, leaves out images whose labels it cannot use, and caches labels under a key that an edit of the same length
does not change.
"""

import hashlib
import logging
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from rsir_core.archive.listing import EXTENSIONS, is_hidden
from rsir_core.arrays import Floats
from rsir_core.boxes.data_yaml import DataYaml, read_data_yaml
from rsir_core.boxes.find_files import is_hidden_entry
from rsir_core.boxes.label_files import LabelFiles, PathFinder
from rsir_core.boxes.yolo import cut_off, label_file, read_label, read_lines
from rsir_core.errors import ImageError, LabelError
from rsir_core.imagery.scene_file import SceneFormatError, open_scene
from rsir_core.imagery.tile_uri import orientation_of_scene

log = logging.getLogger(__name__)
_ORIENTATION: Final = 0x0112  # EXIF tag; values from 5 turn the image by a quarter
_ROUNDING: Final = 0.005  # share of a side; what is cut off a box beyond that is told


class BoxedImage(NamedTuple):
    """Hold one image and its boxes."""

    file: str
    height: int
    width: int
    classes: Floats  # n × 1, positions in the names
    boxes: Floats  # n × 4: x centre, y centre, width, height as shares of the image's sides


@dataclass(frozen=True)
class BoxData:
    """Hold the images and boxes that a detector is trained on, chosen by and, once it is chosen, scored on."""

    names: tuple[str, ...]
    train: list[BoxedImage]
    val: list[BoxedImage]
    test: list[BoxedImage] = field(default_factory=list)  # empty where the data.yaml names none

    def digest(self) -> str:
        """Hash the names, files and boxes that a training must not change under, without the test list."""
        content = hashlib.sha256(repr(self.names).encode())
        for image in (*self.train, *self.val):
            content.update(f"{image.file} {state_of(image.file)}".encode())
            content.update(image.classes.tobytes() + image.boxes.tobytes())
        return content.hexdigest()


def state_of(file: str) -> str:
    """Identify the content of a file by its size and time of modification; empty: there is no such file."""
    try:
        status = Path(file).stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def read_boxes(file: str) -> BoxData:
    """Read a data.yaml (`names`, `train`, `val`, `test` if any, and their `path`) and all labels it leads to.

    Each split is, below `path`, a folder, a text file of image paths, or a list of these; hidden files are left out, as
    in the index. An image's labels are in the text file of the same name, below `labels` where the image is below
    `images`: one `class x y width height` per line, or `class` and the corners of a polygon; boxes are cut off at the
    image's edge. An image without that file has no objects. A test split that is not there is left out, as exports of
    Roboflow name one that they may not have.

    Raises:
        LabelError: something is missing or contradictory; with the file, the line and the remedy.
    """
    settings = read_data_yaml(file)
    paths = PathFinder()
    labels = LabelFiles(paths)
    splits = {split: _read_split(settings, split, paths, labels) for split in settings.places}
    labels.check()
    data = BoxData(settings.names, **splits)
    _check_apart(file, data)
    return data


def _check_apart(file: str, data: BoxData) -> None:
    """Check that scored images are new to the detector. Small sets often judge epochs by what they train on."""
    trained, judged, scored = ({image.file for image in part} for part in (data.train, data.val, data.test))
    if both := scored & trained:
        raise LabelError(
            f"--data {file}: {min(both)} is in test and in train, so that its score would flatter; take it out of one, "
            "or leave test away"
        )
    for name, others in (("train", trained), ("test", scored)):
        if both := others & judged:
            log.warning("%d images are in %s and in val, by which the best epoch is chosen", len(both), name)


def _read_split(settings: DataYaml, split: str, paths: PathFinder, labels: LabelFiles) -> list[BoxedImage]:
    places = [paths.find(place) or place for place in settings.places[split]]
    if split == "test" and not any(place.exists() for place in places):
        log.warning(
            "--data %s: test is %s, which does not exist; there will be no score on it", settings.file, places[0]
        )
        return []
    listed = {image for place in places for image in _list(settings.file, split, place)}
    files = sorted({str(paths.find(Path(image)) or image) for image in listed})
    if not files:
        raise LabelError(f"--data {settings.file}: no image in {split} ({', '.join(map(str, places))})")
    read = [_read_image(file, settings, labels) for file in files]
    if not any(len(image.boxes) for image, _ in read):
        raise LabelError(
            f"--data {settings.file}: none of the {len(files)} images of {split} has a box; the labels of {files[0]} "
            f"were looked for in {label_file(files[0])}"
        )
    if over := [image.file for image, is_over in read if is_over]:
        log.warning(
            "%d images of %s have boxes that reach over the edge and are cut off there, such as those of %s",
            *(len(over), split, labels.of(over[0])),
        )
    return [image for image, _ in read]


def _list(file: str, split: str, place: Path) -> Iterator[str]:
    if place.is_dir():
        images = (p for p in place.rglob("*") if p.suffix.lower() in EXTENSIONS)
        yield from (str(p) for p in images if not is_hidden(p.relative_to(place).as_posix()))
    elif place.suffix.lower() in EXTENSIONS and place.is_file():
        yield str(place)
    elif place.is_file():
        lines = [line.strip() for line in read_lines(place)]
        # a path beginning with ./ is relative to the list, as ultralytics has it; others to the working directory
        yield from (
            str(place.parent / line if line.startswith("./") else Path(line).absolute())
            for line in lines
            if line and not is_hidden_entry(line, place.parent)
        )
    else:
        raise LabelError(f"--data {file}: {split} is {place}, which does not exist; correct `{split}` or `path`")


def image_size(file: str) -> tuple[int, int]:
    """Read height and width in pixels of an image as it is shown, from its header.

    Raises:
        LabelError: it is no image.
    """
    unknown: Exception | None = None
    try:
        with Image.open(file) as image:
            if image.format != "TIFF":  # of one it tells the upright size, even if it is georeferenced
                return _upright(*image.size, image.getexif().get(_ORIENTATION, 1))
    except Exception as error:  # of a broken header nearly every built-in error; it does not know all samples either
        unknown = error
    try:
        with open_scene(file) as dataset:
            return _upright(dataset.width, dataset.height, orientation_of_scene(dataset, file))
    except ImageError as error:
        why = unknown if unknown is not None and isinstance(error, SceneFormatError) else error
        raise LabelError(f"{file} cannot be opened as an image: {why}; mend it or remove it") from error


def _upright(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Return height and width after turning by an EXIF orientation; of more than 8 there is none, so nothing turns."""
    return (width, height) if 5 <= orientation <= 8 else (height, width)


def _read_image(file: str, settings: DataYaml, labels: LabelFiles) -> tuple[BoxedImage, bool]:
    """Read an image and its boxes, and say whether a box reaches over its edge by more than rounding does."""
    height, width = image_size(file)
    label = labels.of(file)
    rows = read_label(label, len(settings.names), settings.keypoints) if label else []
    cut = [cut_off(row) for row in rows]
    table = np.array(list(dict.fromkeys(cut)), np.float32).reshape(-1, 5)  # the same box twice is one box
    is_over = any(max(map(abs, map(operator.sub, a, b))) > _ROUNDING for a, b in zip(rows, cut, strict=True))
    return BoxedImage(file, height, width, table[:, :1], table[:, 1:]), is_over
