"""The objects of each image of a folder, from label files or from COCO's; none is lost by how a name is spelt."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rsir_core.archive.file_names import tell_apart
from rsir_core.boxes.coco import read_coco
from rsir_core.boxes.data import image_size
from rsir_core.boxes.find_files import NamedFiles, is_hidden_entry, stem
from rsir_core.boxes.formats import LabelFormat, MarkedObject, check_size
from rsir_core.boxes.yolo import marks_object
from rsir_core.errors import LabelError

log = logging.getLogger(__name__)
Marked = dict[str, list[MarkedObject]]  # by the image's name


class FoundObjects(NamedTuple):
    """Hold the labels that were found for a folder of images.

    Attributes:
        names: of the classes.
        marked: the objects of each image.
        unmatched: label files, or images of COCO files, that match no image of the folder.
    """

    names: list[str]
    marked: Marked
    unmatched: int


def read_coco_files(boxes: str, images: NamedFiles, drop_unmatched: bool) -> FoundObjects:
    """Read the categories of COCO files, and the objects of each image that they list.

    Args:
        boxes: the files, comma-separated.
        images: all of the folder.
        drop_unmatched: whether listed images that are not in the folder are left out; else they are an error.

    Raises:
        LabelError: see `read_coco`; a listed image is not there, is two, or has another size.
    """
    names: dict[str, None] = {}
    marked: Marked = {}
    owner: dict[str, str] = {}
    unmatched: list[str] = []
    for file in map(Path, boxes.split(",")):
        found, listed = read_coco(file)
        names |= dict.fromkeys(found)
        for image in listed:
            name = images.find(image.file_name, str(file))
            if name is None:
                if not is_hidden_entry(image.file_name, images.folder):
                    unmatched.append(f"{image.file_name} of {file}")
                continue
            if owner.setdefault(name, image.file_name) != image.file_name:
                first, second = tell_apart(owner[name], image.file_name)
                raise LabelError(
                    f"{file}: {first} and {second} both seem to be {name} of {images.folder}; give the "
                    "folder that holds all of them"
                )
            check_size(f"{file}: {image.file_name}", image_size(str(images.path(name))), *image.size)
            marked.setdefault(name, []).extend(image.objects)
    if unmatched:
        what = f"{len(unmatched)} listed images, such as {unmatched[0]}, are not below {images.folder}"
        _tell(what, "give another --images", drop=drop_unmatched and bool(marked))
    return FoundObjects(list(names), marked, len(unmatched))


def read_label_files(
    kind: LabelFormat,
    boxes: str,
    images: NamedFiles,
    sizes: Mapping[str, tuple[int, int]],
    names: Sequence[str],
    drop_unmatched: bool,
) -> FoundObjects:
    """Read the objects of each image: of the label file at its path below `boxes`, else of the one of its name.

    Args:
        kind: of the label files.
        boxes: their folder.
        images: all of the folder.
        sizes: height and width of those that are wanted.
        names: of the classes, where the format only numbers them.
        drop_unmatched: whether label files that mark objects of no image are left out; else they are an error.

    Raises:
        LabelError: a label file that may be of two images, or is of none, or what the format does not allow.
    """
    labels = NamedFiles(boxes, (kind.ending,))
    files = {name: labels.find(stem(name) + kind.ending, name) for name in sizes}
    owner: dict[str, str] = {}
    for name, file in files.items():
        if file is not None and stem(owner.setdefault(file, name)) != stem(name):
            raise LabelError(
                f"{file} of {boxes} may be of {' or of '.join(tell_apart(owner[file], name))}; put label files "
                "into folders as their images are, an empty one where there is no object"
            )
    _check_folders(boxes, files)
    if not any(files.values()):
        first = next(iter(files))
        raise LabelError(f"no image has a label file: {first} none called {stem(first)}{kind.ending} below {boxes}")
    unmatched = _unmatched(kind, images, labels, files)
    if unmatched:
        without = [name for name, file in files.items() if file is None]
        others = f", while {len(without)} images, such as {without[0]}, have no label file" if without else ""
        share = f"{len(unmatched)} of {len(labels.names)} files"
        what = f"{share} of {boxes}, such as {unmatched[0]}, have boxes but match no image of {images.folder}{others}"
        _tell(what, "give the image and its label file one name", drop=drop_unmatched)
    marked = {n: [] if f is None else list(kind.read(labels.path(f), sizes[n], names)) for n, f in files.items()}
    return FoundObjects(
        sorted({found.name for objects in marked.values() for found in objects}), marked, len(unmatched)
    )


def _check_folders(boxes: str, files: Mapping[str, str | None]) -> None:
    """Check that an image without a label file does not get that of another folder's image of the same name.

    Raises:
        LabelError: images of one folder have theirs in several, and not all have one, so that who has none is a guess.
    """
    guessed = {PurePosixPath(name).parent for name, file in files.items() if file is None}
    known: dict[PurePosixPath, tuple[str, str]] = {}
    for name, file in files.items():
        if file is None or PurePosixPath(name).parent not in guessed:
            continue
        first, its = known.setdefault(PurePosixPath(name).parent, (name, file))
        if PurePosixPath(its).parent != PurePosixPath(file).parent:
            raise LabelError(
                f"{first} and {name} would have their boxes in {its} and {file} of {boxes}, in two folders, and others "
                "beside them have none; put the label files of one folder's images into one folder"
            )


def _unmatched(kind: LabelFormat, images: NamedFiles, labels: NamedFiles, files: Mapping[str, str | None]) -> list[str]:
    """List the label files that mark objects of no image; those of images that are in no split are no such files."""
    used = set(files.values())
    return [
        file
        for file in labels.names
        if file not in used and all(name in files for name in images.called(stem(file)))
        if marks_object(labels.path(file), kind.mark)
    ]


def _tell(what: str, remedy: str, drop: bool) -> None:
    if not drop:
        raise LabelError(f"{what}; {remedy}, or pass --unmatched drop to do without these boxes")
    log.warning("%s; these boxes are left out", what)
