"""Split the images of a folder into training, validation and test images, by lists or by a seed."""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rsir_core.boxes.coco import read_coco
from rsir_core.boxes.find_files import NamedFiles, is_hidden_entry
from rsir_core.errors import ConfigError, LabelError

SPLITS: Final = ("train", "val", "test")


def split_images(
    images: NamedFiles, usable: Sequence[str], places: Mapping[str, str | None], shares: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    """Name the images of each of `SPLITS`.

    Args:
        images: all files.
        usable: those that may be in a split.
        places: of each split a list, folder or COCO file; None: not given.
        shares: of val and test, of what is drawn where they are not given; test is drawn only where no place is given.
        seed: of the draw.

    Raises:
        LabelError: a place names what is not usable, or an image is in two of them.
    """
    known, owner = frozenset(usable), dict[str, str]()
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for split, place in places.items():
        for name in sorted(set(_members(images, known, split, place))) if place else ():
            if name in owner:
                raise LabelError(f"{name} is in --{owner[name]} and in --{split}; take it out of one")
            owner[name] = split
            splits[split].append(name)
    if not places["train"]:
        splits["train"] = [name for name in usable if name not in owner]
    rng = random.Random(seed)  # noqa: S311 -- a draw, no secret
    for split in ("test", "val"):
        if not places[split] and (split == "val" or not any(places.values())):
            drawn = set(rng.sample(splits["train"], round(len(splits["train"]) * shares[split])))
            splits[split] = [name for name in splits["train"] if name in drawn]
            splits["train"] = [name for name in splits["train"] if name not in drawn]
    for split in ("train", "val"):
        if not splits[split]:
            raise LabelError(f"no image is left for {split}, of {len(usable)}; give --{split} or other shares")
    return splits


def _members(images: NamedFiles, known: frozenset[str], split: str, place: str) -> Iterable[str]:
    path = Path(place)
    if path.is_dir():
        below = [name for name in known if path.resolve() in images.path(name).resolve().parents]
        if not below:
            raise LabelError(
                f"--{split} {place}: no image of {images.folder} is below this folder; give one of its own"
            )
        return below
    members = (_member(images, known, entry, where) for entry, where in _entries(split, path))
    return [name for name in members if name]


def _member(images: NamedFiles, known: frozenset[str], entry: str, where: str) -> str | None:
    """Find the image that an entry names; None: it is a hidden file."""
    name = images.find(entry, where)
    if name is None and is_hidden_entry(entry, images.folder):
        return None
    if name not in known:
        what = "no image" if name is None else "an image without an entry in --boxes"
        raise LabelError(f"{where}: {entry} is {what} of {images.folder}; correct the list, or give another --images")
    return name


def _entries(split: str, file: Path) -> list[tuple[str, str]]:
    """Read the entries of a list, each with the place where it stands."""
    if file.suffix.lower() == ".json":
        return [(image.file_name, f"{file}: image {image.file_name}") for image in read_coco(file)[1]]
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--{split} {file} cannot be read as a list of images: {error}") from error
    return [(line.strip().removeprefix("./"), f"{file}:{n}") for n, line in enumerate(lines, 1) if line.strip()]
