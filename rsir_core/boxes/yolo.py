"""YOLO's label files: where an image's lies, and what its lines say."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rsir_core.errors import LabelError

MARK: Final = re.compile(rb"^[ \t]*\d+(\.0*)?([ \t]+[-+.\deE]+){4,}\s*$", re.MULTILINE)  # a line that marks an object
_TOLERANCE: Final = 0.01  # by which ultralytics lets centre and size be outside 0 to 1
Values = tuple[float, ...]  # class, x centre, y centre, width, height; shares of the image's sides


def label_file(image: str) -> Path:
    """Say where the labels of an image are looked for."""
    before, images, after = image.rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{before}{os.sep}labels{os.sep}{after}" if images else image).with_suffix(".txt")


def read_lines(file: Path) -> list[str]:
    """Read the lines of a text file.

    Raises:
        LabelError: it cannot be read, or is no UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{file} cannot be read as UTF-8 text: {error}") from error


def marks_object(file: Path, mark: re.Pattern[bytes]) -> bool:
    """Say whether a file is a label file that marks an object: others of its ending may lie beside those.

    Raises:
        LabelError: it cannot be read.
    """
    try:
        return mark.search(file.read_bytes()) is not None
    except OSError as error:
        raise LabelError(f"{file} cannot be read: {error}; mend it or remove it") from error


def read_label(file: Path, classes: int, keypoints: int) -> list[Values]:
    """Read the boxes of one image; they may reach over its edge: see `cut_off`.

    Args:
        file: of labels.
        classes: how many there are.
        keypoints: numbers after the box in lines of a pose's set, which are left out; 0: it is no such set.

    Raises:
        LabelError: a line that is none, or a box that ultralytics would refuse the image for, or without area inside.
    """
    rows = []
    for number, line in enumerate(read_lines(file), 1):
        if words := line.split():
            values = parse_line(
                file, number, words[:5] if keypoints and len(words) == 5 + keypoints else words, classes
            )
            if not all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in values[1:]) or min(cut_off(values)[3:]) <= 0:
                raise LabelError(
                    f"{file}:{number}: the box {words[1:]} is empty or outside its image; "
                    "give centre and size as shares of the image's sides"
                )
            rows.append(values)
    return rows


def cut_off(values: Values) -> Values:
    """Cut a box off at the image's edge; width or height is 0 or below where nothing is left."""
    place, x, y, w, h = values
    x0, y0, x1, y1 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    if min(x0, y0) >= 0 and max(x1, y1) <= 1:
        return values  # to the last bit
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, 1), min(y1, 1)
    return place, (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def parse_line(file: Path, number: int, words: list[str], classes: int) -> Values:
    """Read (class, x, y, width, height) of one line, wherever that box is.

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
    """Find the box around a polygon."""
    (x0, *_, x1), (y0, *_, y1) = sorted(xs), sorted(ys)
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
