"""A data.yaml, read as ultralytics' `check_det_dataset` reads it; only that it downloads nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from rsir_core.errors import LabelError

_UP: Final = "../"


class DataYaml(NamedTuple):
    """Hold what a data.yaml says.

    Attributes:
        file: its path, for messages.
        names: of the classes.
        places: of each split that it names, folders of images, lists of them, and images; they may not exist.
        keypoints: numbers after each box in label files of a pose's set; 0: it is no such set.
    """

    file: str
    names: tuple[str, ...]
    places: Mapping[str, list[Path]]
    keypoints: int


def read_data_yaml(file: str) -> DataYaml:
    """Read the settings and resolve their paths.

    `validation` stands for `val` and `nc` alone for `names`, as in ultralytics. A path that begins with `../` and leads
    nowhere is taken from the data.yaml's own folder, as exports of Roboflow mean it.

    Raises:
        LabelError: it is no data.yaml, or a setting is missing or contradictory.
    """
    settings = _read_yaml(Path(file))
    if settings.get("val") is None and settings.get("validation"):
        settings["val"] = settings["validation"]
    names = _names(file, settings)
    root = _root(file, settings.get("path"))
    places = {split: _places(root, settings[split]) for split in ("train", "val", "test") if settings.get(split)}
    if missing := [split for split in ("train", "val") if split not in places]:
        raise LabelError(
            f"--data {file}: {missing[0]} is missing; give a folder of images or a text file of image paths"
        )
    return DataYaml(file, names, places, _keypoints(file, settings.get("kpt_shape")))


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabelError(f"--data {file} cannot be read as YAML: {error}; give a data.yaml") from error
    if not isinstance(settings, dict):
        raise LabelError(f"--data {file} is no data.yaml: expected `train`, `val` and `names`")
    return {key: None if value == "None" else value for key, value in settings.items()}


def _names(file: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    names, count = settings.get("names"), _count(file, settings.get("nc"))
    if names is None and count is not None:
        names = [f"class_{i}" for i in range(count)]
    if isinstance(names, dict):
        names = _numbered(names)
    if not isinstance(names, list) or not names or len(set(map(str, names))) < len(names):
        raise LabelError(
            f"--data {file}: names is {settings.get('names')!r}; give the class names as a list, or numbered from 0, "
            "each once"
        )
    if count not in (None, len(names)):
        raise LabelError(f"--data {file}: nc is {count}, but names has {len(names)}; correct one of them")
    return tuple(map(str, names))


def _count(file: str, count: object) -> int | None:
    """Parse `nc`, which may also be a text or have a decimal point."""
    if count is None:
        return None
    try:
        whole = int(str(count).removesuffix(".0"))
    except ValueError:
        whole = -1
    if whole < 0:
        raise LabelError(f"--data {file}: nc is {count!r}; give the number of classes, or remove it")
    return whole


def _numbered(names: Mapping[object, object]) -> list[object] | None:
    """Order names by their numbers, which may be texts; None: the numbers are not those from 0 on."""
    try:
        known = {int(str(number)): name for number, name in names.items()}
    except ValueError:
        return None
    return [known[i] for i in range(len(names))] if set(known) == set(range(len(names))) else None


def _root(file: str, path: object) -> Path:
    """Resolve `path`: absolute, relative to the data.yaml, or, as ultralytics allows, to the working directory."""
    if not isinstance(path, str | None):
        raise LabelError(f"--data {file}: path is {path!r}; give the folder that the splits are below, as text")
    given = Path(path or "")
    beside = Path(file).absolute().parent / given
    root = beside if beside.exists() else given.absolute()
    if not root.exists():
        raise LabelError(
            f"--data {file}: path is {path}, which is neither beside the data.yaml nor in the working directory "
            "(ultralytics' own datasets_dir is not searched); give an absolute `path`"
        )
    return root


def _places(root: Path, given: object) -> list[Path]:
    return [_place(root, str(place)) for place in (given if isinstance(given, list) else [given])]


def _place(root: Path, given: str) -> Path:
    place, without = root / given, root / given.removeprefix(_UP)
    place = without if not place.exists() and without.exists() else place
    return (
        place.resolve() if ".." in place.parts else place
    )  # so that an image has one path, by which splits are compared


def _keypoints(file: str, shape: object) -> int:
    """Parse `kpt_shape`: how many keypoints there are, times the numbers of each."""
    match shape:
        case None:
            return 0
        case [int(count), int(each)]:
            return count * each
        case _:
            raise LabelError(f"--data {file}: kpt_shape is {shape!r}; give [number of keypoints, 2 or 3], or remove it")
