"""Images with boxes, written as a data.yaml that `boxes.data` and ultralytics read: labels, lists and links."""

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import yaml
from fsspec.implementations.local import LocalFileSystem

from rsir_core.boxes.yolo import label_file
from rsir_core.errors import ConfigError, LabelError
from rsir_core.models.regions import Box
from rsir_core.storage.filesystem import opened

EDGE: Final = 1.0  # pixel by which a box may reach over its image: formats count from 0 or 1, and round


class ImageToWrite(NamedTuple):
    """Hold one image of a split and the boxes to write for it."""

    uri: str
    name: str  # its path below `images`, with /
    size: tuple[int, int]  # height, width
    objects: list[tuple[int, Box]]  # position of the class among the names, and the box in pixels


def local_path(option: str, path: str) -> Path:
    """Check that a path is on this machine: boxes are files beside links to images, which no bucket has.

    Raises:
        ConfigError: it is a URI.
    """
    if "://" in path:
        raise ConfigError(f"{option} {path}: boxes are kept in folders of this machine; give a path")
    return Path(path)


def new_folder(out: str) -> Path:
    """Make the folder that `--out` names.

    Raises:
        ConfigError: something is there already, or it is not of this machine.
    """
    target = local_path("--out", out).absolute()
    if target.exists():
        raise ConfigError(f"--out {out} exists already; remove it, or give a new folder")
    return target


def check_names(names: Iterable[str]) -> None:
    """Make sure that images of these names have labels in files of their own.

    Raises:
        LabelError: two images differ in their endings only.
    """
    first: dict[Path, str] = {}
    for name in names:
        labels = label_file(f"/images/{name}")
        if labels in first:
            raise LabelError(
                f"{first[labels]} and {name} would have their labels in one file, {labels.name}; give them different "
                "names, whatever their endings"
            )
        first[labels] = name


def write_boxes(
    out: str,
    names: Sequence[str],
    splits: Mapping[str, Sequence[ImageToWrite]],
    more: Mapping[str, bytes] = MappingProxyType({}),
) -> Path:
    """Write a data.yaml with the splits that have images; the folder appears as a whole or not at all.

    Local images become links, others are fetched; `more`: content of other files, by name.

    Raises:
        ConfigError: the folder exists already, or cannot be made.
        LabelError: two images differ in their endings only.
    """
    target = new_folder(out)
    check_names(image.name for images in splits.values() for image in images)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ConfigError(f"--out {out}: the folder cannot be made: {error}") from error
    try:
        for name, content in more.items():
            (part / name).write_bytes(content)
        given = {split: images for split, images in splits.items() if images}
        for split, images in given.items():
            for image in images:
                _write_image(part, image)
            (part / f"{split}.txt").write_text("".join(f"./images/{image.name}\n" for image in images))
        settings = {**{split: f"{split}.txt" for split in given}, "names": dict(enumerate(names))}
        (part / "data.yaml").write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "utf-8")
        part.chmod(0o755)  # a temporary folder is closed to others
        part.rename(target)
    except BaseException:
        shutil.rmtree(part)
        raise
    return target / "data.yaml"


def _write_image(folder: Path, image: ImageToWrite) -> None:
    link = folder / "images" / image.name
    link.parent.mkdir(parents=True, exist_ok=True)
    fs, path = opened(image.uri)
    if isinstance(fs, LocalFileSystem):
        link.symlink_to(Path(path).absolute())
    else:
        fs.get_file(path, str(link))
    labels = label_file(str(link))
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text("".join(label_line(place, box, image.size) for place, box in image.objects))


def label_line(place: int, box: Box, size: tuple[int, int]) -> str:
    """Write `class x y width height` as shares of an image of height × width, to a millionth."""
    height, width = size
    x, y = box.centre
    shares = (x / width, y / height, (box.x1 - box.x0) / width, (box.y1 - box.y0) / height)
    return f"{place} {' '.join(f'{share:.6f}' for share in shares)}\n"
