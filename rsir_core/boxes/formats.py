"""The formats that have a label file per image, read: YOLO text, Pascal VOC XML, DOTA text and NWPU VHR-10 text.

`supervision` and `globox` read the first two (and COCO, see `coco`), but neither DOTA nor NWPU, and a box outside its
image or a class that nobody named goes through them unseen; what is needed here is the line to correct.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree

from rsir_core.archive.file_names import composed
from rsir_core.boxes.polygons import Corners, around
from rsir_core.boxes.yolo import MARK, parse_line
from rsir_core.errors import LabelError
from rsir_core.models.regions import Box

NWPU_CLASSES: Final = (
    *("airplane", "ship", "storage tank", "baseball diamond", "tennis court"),
    *("basketball court", "ground track field", "harbor", "bridge", "vehicle"),
)
_NWPU: Final = re.compile(r"\(\s*(-?\d+)\s*,\s*(-?\d+)\s*\)\s*,\s*\(\s*(-?\d+)\s*,\s*(-?\d+)\s*\)\s*,\s*(\d+)")
_DOTA_HEADER: Final = ("imagesource:", "gsd:")


class MarkedObject(NamedTuple):
    """Hold one object as somebody marked it; nothing is checked but that it could be read."""

    name: str  # of the class; in Unicode's composed form where the annotation has it
    box: Box  # pixels of the image; edges as written, so that formats that count from 1 are a pixel off
    where: str  # file and line, or entry, for messages
    difficult: bool = False
    corners: Corners = ()  # of a polygon, in pixels; empty: the box is all that was marked


Reader = Callable[[Path, tuple[int, int], Sequence[str]], Iterator[MarkedObject]]


def read_yolo(file: Path, size: tuple[int, int], names: Sequence[str]) -> Iterator[MarkedObject]:
    """Read lines `class x y width height`, or `class` and a polygon's corners, as shares of height × width."""
    height, width = size
    for number, line in _lines(file):
        words = line.split()
        place, x, y, w, h = parse_line(file, number, words, len(names))
        box = Box((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        shares = [float(word) for word in words[1:]] if len(words) > 5 else []
        corners = tuple((x * width, y * height) for x, y in zip(shares[0::2], shares[1::2], strict=True))
        yield MarkedObject(names[int(place)], box, f"{file}:{number}", corners=corners)


def read_dota(file: Path, size: tuple[int, int], names: Sequence[str]) -> Iterator[MarkedObject]:
    """Read lines `x1 y1 … x4 y4 class difficult` after header lines, as the upright box around each quadrilateral."""
    for number, line in _lines(file):
        if line.startswith(_DOTA_HEADER):
            continue
        where, words = f"{file}:{number}", line.split()
        values, rest = numbers(words[:8]), words[8:]
        if len(values) < 8 or len(rest) not in (1, 2) or not set(rest[1:]) <= {"0", "1", "2"}:
            raise LabelError(f"{where}: {line!r} is not `x1 y1 x2 y2 x3 y3 x4 y4 class difficult`; correct the line")
        corners = tuple(zip(values[0::2], values[1::2], strict=True))
        if (box := around(corners)) is not None:
            yield MarkedObject(composed(rest[0]), box, where, rest[1:] not in ([], ["0"]), corners)


def read_nwpu(file: Path, size: tuple[int, int], names: Sequence[str]) -> Iterator[MarkedObject]:
    """Read lines `(x1,y1),(x2,y2),class`, classes counted from 1; NWPU VHR-10 itself has lines with two of them."""
    for number, line in _lines(file):
        where = f"{file}:{number}"
        if _NWPU.sub("", line).strip():
            raise LabelError(f"{where}: {line!r} is not `(x1,y1),(x2,y2),class`; correct the line")
        for found in _NWPU.finditer(line):
            *edges, place = map(int, found.groups())
            if not 1 <= place <= len(names):
                raise LabelError(
                    f"{where}: class {place} is not among the {len(names)} names, which are numbered from 1; "
                    "correct it, or name it in --classes"
                )
            yield MarkedObject(names[place - 1], Box(*edges), where)


def read_voc(file: Path, size: tuple[int, int], names: Sequence[str]) -> Iterator[MarkedObject]:
    """Read each `object` that has a `name` and a `bndbox`."""
    root = _read_xml(file)
    check_size(str(file), size, root.findtext("size/height"), root.findtext("size/width"))
    for number, entry in enumerate(root.iter("object"), 1):
        where, name = f"{file}: object {number}", composed((entry.findtext("name") or "").strip())
        written = [entry.findtext(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")]
        edges = numbers(written)
        if not name or not edges:
            raise LabelError(
                f"{where} ({name or 'without name'}): it needs `name` and `bndbox` with xmin, ymin, xmax and ymax, but "
                f"the box is {written}; correct the object"
            )
        difficult = (entry.findtext("difficult") or "0").strip() != "0"
        yield MarkedObject(name, Box(*edges), where, difficult)


class LabelFormat(NamedTuple):
    """Describe a format that has a label file per image.

    Attributes:
        ending: of its files.
        read: what reads one.
        mark: what a file that marks an object contains, as bytes, however wrong it is; other files may have its ending.
    """

    ending: str
    read: Reader
    mark: re.Pattern[bytes]


LABEL_FORMATS: Final = {
    "yolo": LabelFormat(".txt", read_yolo, MARK),
    "dota": LabelFormat(".txt", read_dota, re.compile(rb"^[ \t]*([-+.\deE]+[ \t]+){8}\S", re.MULTILINE)),
    "nwpu": LabelFormat(".txt", read_nwpu, re.compile(rb"^\s*\(\s*-?\d+\s*,\s*-?\d+\s*\)", re.MULTILINE)),
    "voc": LabelFormat(".xml", read_voc, re.compile(rb"<object\b")),
}


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuse document types, and so entities, which could fetch files from elsewhere or expand without limit.

    That is all of what defusedxml would add here, whose last release is of 2021.
    """

    def doctype(self, *_: str | None) -> None:
        raise LabelError("a document type (<!DOCTYPE …>) is not read; remove it")


def _read_xml(file: Path) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_WithoutDoctype())  # noqa: S314 -- see there
    try:
        return ElementTree.parse(file, parser).getroot()  # noqa: S314
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: of its encoding
        raise LabelError(f"{file} cannot be read as XML: {error}; mend it or remove it") from error
    except LabelError as error:
        raise LabelError(f"{file}: {error}") from error


def check_size(where: str, size: tuple[int, int], *written: Any) -> None:
    """Refuse an image of another size than the one that was marked, whose boxes are elsewhere.

    Args:
        where: for the message.
        size: of the image, height and width.
        written: height and width as the annotation has them; nothing or 0: unknown.

    Raises:
        LabelError: the sizes differ.
    """
    given = numbers(written)
    if all(given) and given not in ([], list(size)):
        raise LabelError(
            f"{where}: the boxes are of an image of {given[1]:g}×{given[0]:g} pixels, but it has {size[1]}×{size[0]}; "
            "give the image that was marked"
        )


def numbers(texts: Iterable[Any]) -> list[float]:
    """Read all of them as numbers; none where one is no number."""
    try:
        return [float(text) for text in texts]
    except (TypeError, ValueError):
        return []


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{file} cannot be read as text: {error}; mend it or remove it") from error
    yield from ((n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip())
