"""Images with boxes for fine-tuning the detector: a data.yaml as ultralytics defines it, read and checked.

It is read here and not by ultralytics because that one rewrites JPEGs it finds damaged, runs the `download:` script of
a data.yaml, leaves out images whose labels it cannot use, and caches labels under a key that an edit of the same length
does not change.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from rsir_core.archive import EXTENSIONS
from rsir_core.errors import ImageError, LabelError
from rsir_core.tiles import SceneFormatError, open_scene

log = logging.getLogger(__name__)
_ORIENTATION: Final = 0x0112  # EXIF tag; values from 5 turn the image by a quarter
_TOLERANCE: Final = 0.01  # by which a box may reach over the image's edge, as ultralytics allows


class BoxedImage(NamedTuple):
    """One image and its boxes."""

    file: str
    height: int
    width: int
    classes: npt.NDArray[np.float32]  # n × 1, positions in the names
    boxes: npt.NDArray[np.float32]  # n × 4: x centre, y centre, width, height as shares of the image's sides


@dataclass(frozen=True)
class BoxData:
    """What a detector is trained on, chosen by and, once it is chosen, scored on."""

    names: tuple[str, ...]
    train: list[BoxedImage]
    val: list[BoxedImage]
    test: list[BoxedImage] = field(default_factory=list)  # empty where the data.yaml names none

    def digest(self) -> str:
        """A hash of the names, the files and the boxes: what a training must not change under; without test."""
        content = hashlib.sha256(repr(self.names).encode())
        for image in (*self.train, *self.val):
            content.update(f"{image.file} {state_of(image.file)}".encode())
            content.update(image.classes.tobytes() + image.boxes.tobytes())
        return content.hexdigest()


def state_of(file: str) -> str:
    """What changes when a file does; empty: there is none."""
    try:
        status = Path(file).stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def read_boxes(file: str) -> BoxData:
    """Read a data.yaml (`names`, `train`, `val`, `test` if any, and their `path`) and all labels it leads to.

    Each split is, below `path`, a folder, a text file of image paths, or a list of these. An image's labels are in the
    text file of the same name, below `labels` where the image is below `images`: one `class x y width height` per line,
    or `class` and the corners of a polygon. An image without that file has no objects.

    Raises:
        LabelError: something is missing or contradictory; with the file, the line and the remedy.
    """
    settings = _read_yaml(Path(file))
    names = _names(file, settings.get("names"))
    root = _root(Path(file), settings)
    splits = ("train", "val", "test") if settings.get("test") else ("train", "val")
    data = BoxData(names, *(_read_split(file, settings, split, root, len(names)) for split in splits))
    _check_apart(file, data)
    return data


def _check_apart(file: str, data: BoxData) -> None:
    """What is scored must be new to the detector. Small sets often judge epochs by what they train on."""
    trained, judged, scored = ({image.file for image in part} for part in (data.train, data.val, data.test))
    if both := scored & trained:
        raise LabelError(
            f"--data {file}: {min(both)} is in test and in train, so that its score would flatter; take it out of one, "
            "or leave test away"
        )
    for name, others in (("train", trained), ("test", scored)):
        if both := others & judged:
            log.warning("%d images are in %s and in val, by which the best epoch is chosen", len(both), name)


def _read_yaml(file: Path) -> Mapping[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabelError(f"--data {file} cannot be read as YAML: {error}; give a data.yaml") from error
    if not isinstance(settings, dict):
        raise LabelError(f"--data {file} is no data.yaml: expected `train`, `val` and `names`")
    return settings


def _names(file: str, names: object) -> tuple[str, ...]:
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names or len(set(map(str, names))) < len(names):
        raise LabelError(
            f"--data {file}: names is {names!r}; give the class names as a list, or numbered from 0, each once"
        )
    return tuple(map(str, names))


def _root(file: Path, settings: Mapping[str, Any]) -> Path:
    """`path`: absolute, or relative to the data.yaml, or, as ultralytics has it, to the working directory."""
    given = Path(settings.get("path") or "")
    beside = file.absolute().parent / given
    return beside if beside.exists() or not given.exists() else given.absolute()


def _read_split(file: str, settings: Mapping[str, Any], split: str, root: Path, classes: int) -> list[BoxedImage]:
    given = settings.get(split)
    if not given:
        raise LabelError(f"--data {file}: {split} is missing; give a folder of images or a text file of image paths")
    places = [root / str(place) for place in (given if isinstance(given, list) else [given])]
    images = sorted({image for place in places for image in _list(file, split, place)})
    if not images:
        raise LabelError(f"--data {file}: no image in {split} ({', '.join(map(str, places))})")
    boxed = [_read_image(image, classes) for image in images]
    if not any(len(image.boxes) for image in boxed):
        raise LabelError(
            f"--data {file}: none of the {len(images)} images of {split} has a box; the labels of {images[0]} were "
            f"looked for in {label_file(images[0])}"
        )
    return boxed


def _list(file: str, split: str, place: Path) -> Iterator[str]:
    if place.is_dir():
        yield from (str(p) for p in place.rglob("*") if p.suffix.lower() in EXTENSIONS)
    elif place.suffix.lower() in EXTENSIONS and place.is_file():
        yield str(place)
    elif place.is_file():
        lines = (line.strip() for line in read_lines(place))
        # a path beginning with ./ is relative to the list, as ultralytics has it; others to the working directory
        yield from (
            str(place.parent / line if line.startswith("./") else Path(line).absolute()) for line in lines if line
        )
    else:
        raise LabelError(f"--data {file}: {split} is {place}, which does not exist; correct `{split}` or `path`")


def label_file(image: str) -> Path:
    """Where the labels of an image are looked for."""
    before, images, after = image.rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{before}{os.sep}labels{os.sep}{after}" if images else image).with_suffix(".txt")


def image_size(file: str) -> tuple[int, int]:
    """Height and width in pixels of an image as it is shown, from its header.

    Raises:
        LabelError: it is no image.
    """
    try:
        with Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception as unknown:  # of a broken header nearly every built-in error; it does not know all samples either
        try:
            with open_scene(file) as dataset:
                return int(dataset.height), int(dataset.width)
        except ImageError as error:
            why = unknown if isinstance(error, SceneFormatError) else error
            raise LabelError(f"{file} cannot be opened as an image: {why}; mend it or remove it") from error
    return (width, height) if turned else (height, width)


def _read_image(file: str, classes: int) -> BoxedImage:
    height, width = image_size(file)
    label = label_file(file)
    lines = read_lines(label) if label.is_file() else []
    rows = [_read_line(label, n, line.split(), classes) for n, line in enumerate(lines, 1) if line.strip()]
    table = np.array(list(dict.fromkeys(rows)), np.float32).reshape(-1, 5)  # the same box twice is one box
    return BoxedImage(file, height, width, table[:, :1], table[:, 1:])


def read_lines(file: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        LabelError: it cannot be read, or is no UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{file} cannot be read as UTF-8 text: {error}") from error


def _read_line(file: Path, number: int, words: list[str], classes: int) -> tuple[float, ...]:
    values = parse_line(file, number, words, classes)
    x, y, w, h = values[1:]
    inside = all(-_TOLERANCE <= edge <= 1 + _TOLERANCE for edge in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    if not (inside and w > 0 and h > 0):
        raise LabelError(
            f"{file}:{number}: the box {words[1:]} is empty or outside its image; "
            "give centre and size as shares of the image's sides"
        )
    return values


def parse_line(file: Path, number: int, words: list[str], classes: int) -> tuple[float, ...]:
    """(class, x, y, width, height) of one line, wherever that box is.

    Raises:
        LabelError: it is no such line, or there is no such class.
    """
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) >= 7 and len(values) % 2 == 1:
        values = [values[0], *_around(values[1::2], values[2::2])]
    if len(values) != 5:
        raise LabelError(
            f"{file}:{number}: {' '.join(words)!r} is neither `class x y width height` nor `class` and at least three "
            "corners"
        )
    if values[0] not in range(classes):
        raise LabelError(
            f"{file}:{number}: class {words[0]} is not among the {classes} names, which are numbered from 0"
        )
    return tuple(values)


def _around(xs: Iterable[float], ys: Iterable[float]) -> tuple[float, float, float, float]:
    """The box around a polygon."""
    (x0, *_, x1), (y0, *_, y1) = sorted(xs), sorted(ys)
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
