"""COCO's boxes: a JSON file that lists images, categories and annotations by their ids."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rsir_core.archive.file_names import composed
from rsir_core.boxes.formats import MarkedObject, numbers
from rsir_core.errors import LabelError
from rsir_core.models.regions import Box

Id = int | float | str  # 1 and 1.0 are one id, as for pycocotools, whose dictionaries compare them; "1" is another


class CocoImage(NamedTuple):
    """Hold an image that a COCO file lists."""

    file_name: str
    size: tuple[Any, Any]  # height and width as written; None: not given
    objects: list[MarkedObject]


def read_coco(file: Path) -> tuple[list[str], list[CocoImage]]:
    """Read the categories' names in the order of their ids, numbers first, and the images with their boxes.

    Crowds, which are no single object, are left out.

    Raises:
        LabelError: the file cannot be read, or an entry lacks what it needs or names what is not there; with the entry.
    """
    content = _read_json(file)
    categories = _by_id(file, "categories", content["categories"], "name")
    images = {
        key: CocoImage(str(entry["file_name"]), (entry.get("height"), entry.get("width")), [])
        for key, entry in _by_id(file, "images", content["images"], "file_name").items()
    }
    for number, entry in enumerate(content["annotations"]):
        if not isinstance(entry, dict):
            raise LabelError(f"{file}: annotation number {number}, {str(entry)[:200]}, is no JSON object; correct it")
        where = f"{file}: annotation {entry.get('id', f'number {number}')}"
        for key, known in (("image_id", images), ("category_id", categories)):
            _check_known(where, key, entry.get(key), known)
        edges, crowd = _edges(where, entry), numbers([entry.get("iscrowd") or 0])
        if not crowd:
            raise LabelError(f"{where}: iscrowd is {entry['iscrowd']!r}; give 0 or 1")
        if not crowd[0]:
            x, y, w, h = edges
            found = MarkedObject(_name(categories[entry["category_id"]]), Box(x, y, x + w, y + h), where)
            images[entry["image_id"]].objects.append(found)
    ordered = sorted(categories.items(), key=lambda item: (isinstance(item[0], str), item[0]))
    return [_name(category) for _, category in ordered], list(images.values())


def _name(category: Mapping[str, Any]) -> str:
    return composed(str(category["name"]))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LabelError(f"{file} cannot be read as JSON: {error}; give a COCO file") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise LabelError(f"{file} is no COCO file of boxes: it needs the lists {', '.join(lists)}")
    return content


def _by_id(file: Path, kind: str, entries: list[Any], needed: str) -> dict[Id, Mapping[str, Any]]:
    """Map the entries of a list by their ids; each must have the needed key, with a text or a number as its value."""
    known: dict[Id, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries):
        for key in ("id", needed):
            if not isinstance(entry, dict) or not isinstance(entry.get(key), Id) or entry[key] == "":
                raise LabelError(
                    f"{file}: entry number {number} (from 0) of `{kind}`, {str(entry)[:200]}, has no `{key}` that is a "
                    "number or a text; correct it"
                )
        if entry["id"] in known:
            raise LabelError(f"{file}: two of its {kind} have the id {entry['id']!r}; number them anew")
        known[entry["id"]] = entry
    return known


def _check_known(where: str, key: str, value: Any, known: Mapping[Id, Any]) -> None:
    if isinstance(value, Id) and value in known:
        return
    meant = [
        other for other in known if isinstance(value, Id) and numbers([other]) and numbers([other]) == numbers([value])
    ]
    hint = f", but {meant[0]!r} is; write all ids as numbers" if meant else "; correct the annotation"
    raise LabelError(f"{where}: {key} {value!r} is not in the file{hint}")


def _edges(where: str, entry: Mapping[str, Any]) -> list[float]:
    edges = numbers(entry["bbox"]) if isinstance(entry.get("bbox"), list) else []
    if len(edges) != 4:
        raise LabelError(f"{where}: {str(entry)[:200]} has no `bbox` of x, y, width and height; correct it")
    return edges
