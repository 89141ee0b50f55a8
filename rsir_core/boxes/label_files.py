"""The label file of each image of a YOLO set, whichever way its name is spelt, and those that are of no image."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rsir_core.archive.file_names import composed, name_key, tell_apart
from rsir_core.archive.listing import EXTENSIONS, is_hidden
from rsir_core.boxes.yolo import MARK, label_file, marks_object
from rsir_core.errors import LabelError

log = logging.getLogger(__name__)
_ENDINGS: Final = EXTENSIONS | {".txt"}


class PathFinder:
    """Find files whose names differ from those given in their Unicode form or in the case of the extension.

    Keeps the listing of each folder in which it had to look.
    """

    def __init__(self) -> None:
        self._names: dict[Path, Mapping[str, list[str]]] = {}

    def find(self, path: Path) -> Path | None:
        """Find what is there; exactly that path if it exists. None: there is nothing.

        Raises:
            LabelError: several names are alike, or a folder cannot be listed.
        """
        if os.path.lexists(path):
            return path
        folder = self.find(path.parent) if path.parent != path else None
        names = self._list(folder).get(name_key(path.name, _ENDINGS), []) if folder and folder.is_dir() else []
        if len(names) > 1:
            first, second = tell_apart(*names[:2])
            raise LabelError(f"{path} may be {first} or {second} of {folder}; remove or rename one")
        return folder / names[0] if folder and names else None

    def _list(self, folder: Path) -> Mapping[str, list[str]]:
        if folder not in self._names:
            names: dict[str, list[str]] = defaultdict(list)
            for name in listed(folder):
                names[name_key(name, _ENDINGS)].append(name)
            self._names[folder] = names
        return self._names[folder]


class LabelFiles:
    """Find the label file of each image of a set, then check the set as a whole."""

    def __init__(self, paths: PathFinder) -> None:
        self._paths = paths
        self._file: dict[str, Path | None] = {}  # by image

    def of(self, image: str) -> Path | None:
        """Find the label file of an image: None where it has no objects."""
        if image not in self._file:
            found = (self._paths.find(label_file(spelt)) for spelt in _spellings(Path(image)))
            self._file[image] = next((file for file in found if file), None)
        return self._file[image]

    def check(self) -> None:
        """Make sure, once every image was looked for, that none loses its boxes by a name; warn of labels of no image.

        Raises:
            LabelError: a label file may be of two images, or its name differs by capital letters from that of an image
                without one.
        """
        owner: dict[Path, str] = {}
        for image, file in self._file.items():
            if file and Path(first := owner.setdefault(file, image)).stem != Path(image).stem:
                raise LabelError(f"{file} may be of {' or of '.join(tell_apart(first, image))}; rename one of the two")
        without = [image for image, file in self._file.items() if file is None]
        lost = {_in_small_letters(label_file(image)): image for image in without}
        unmatched = list(self._unmatched())
        for file in unmatched:
            if alike := lost.get(_in_small_letters(file)):
                raise LabelError(f"{file} seems to be of {alike}, which would be without boxes; spell both names alike")
        if unmatched:
            log.warning(
                "%d label files are of no image, such as %s; %d of %d images have none%s",
                *(len(unmatched), unmatched[0], len(without), len(self._file)),
                f" and count as images without objects, such as {without[0]}" if without else "",
            )

    def _unmatched(self) -> Iterator[Path]:
        """Find label files that mark objects but have no image, listed or not, in the folders of the images."""
        stems: dict[Path, set[str]] = defaultdict(set)  # by folder of labels, those of the images
        for folder in {Path(image).parent for image in self._file}:
            names = [n for n in listed(folder) if Path(n).suffix.lower() in EXTENSIONS or str(folder / n) in self._file]
            for image in _spellings(folder / "any.jpg"):
                if (labels := self._paths.find(label_file(image).parent)) and labels.is_dir():
                    stems[labels.resolve()] |= {composed(Path(name).stem) for name in names}
        for folder, known in sorted(stems.items()):
            for name in sorted(listed(folder)):
                file = folder / name
                is_other = file.suffix.lower() != ".txt" or is_hidden(name) or composed(file.stem) in known
                if not is_other and file.is_file() and marks_object(file, MARK):
                    yield file


def _spellings(image: Path) -> Iterator[str]:
    """Spell an image's path as it is and, as ultralytics does, with its linked folders resolved."""
    yield str(image)
    if (real := os.path.realpath(image.parent)) != str(image.parent):
        yield str(Path(real) / image.name)


def _in_small_letters(file: Path) -> str:
    return composed(str(file.with_suffix(""))).casefold()


def listed(folder: Path) -> list[str]:
    """List what is in a folder.

    Raises:
        LabelError: it cannot be listed.
    """
    try:
        return [path.name for path in folder.iterdir()]
    except OSError as error:
        raise LabelError(f"{folder} cannot be listed: {error}; check its permissions") from error
