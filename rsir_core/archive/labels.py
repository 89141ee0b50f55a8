"""Labels and splits: the class of each image of an archive, and whether it is for training or for tests."""

import csv
import io
import logging
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Literal, NamedTuple

from rsir_core.archive.file_names import NamedValues
from rsir_core.archive.listing import ImageFile
from rsir_core.errors import LabelError, RsirError
from rsir_core.storage.filesystem import file_system

log = logging.getLogger(__name__)
Split = Literal["train", "test"]


class LabelledImage(NamedTuple):
    """Hold an image of the archive, its label and its split."""

    uri: str
    label: str
    split: Split


def folder_label(image_id: str) -> str:
    """Return the name of the folder that an image lies in.

    Raises:
        LabelError: the image lies in no folder.
    """
    folder, _, name = image_id.rpartition("/")
    if not folder:
        raise LabelError(f"{name} lies in no class folder; put it into one, or pass a CSV of labels")
    return folder.rpartition("/")[2]


def _say_nested(files: Iterable[ImageFile]) -> None:
    """Warn of a label that is the name of several folders, as years below classes are."""
    folders: dict[str, set[str]] = defaultdict(set)
    for file in files:
        folders[folder_label(file.image_id)].add(file.image_id.rpartition("/")[0])
    if several := sorted(label for label, of_label in folders.items() if len(of_label) > 1):
        one, other, *_ = sorted(folders[several[0]])
        log.warning(
            "%d of %d labels are the names of several folders: %s and %s are one class, as labels are the names of the "
            "innermost folders; pass --labels CSV if they are not",
            len(several), len(folders), one, other,
        )  # fmt: skip


def label_images(images: Iterable[ImageFile], labels_csv: str | None) -> list[tuple[str, str]]:
    """Label images from a CSV of `uri,label` rows, else from folder names; returns (uri, label) pairs, sorted by uri.

    A row's uri may also be the image id (the path below the archive), in any Unicode form. Images without a row are
    left out.

    Raises:
        LabelError: a row names no image of the archive, has an empty or a second label, or there are fewer than two
            classes.
    """
    files = sorted(images, key=lambda image: image.uri)
    if labels_csv is None:
        pairs = [(image.uri, folder_label(image.image_id)) for image in files]
        _say_nested(files)
    else:
        rows = _labelled(labels_csv, read_rows(labels_csv, ("uri", "label")))
        known = NamedValues({k: f.uri for f in files for k in (f.image_id, f.uri)})
        named = [(row, known.get(row["uri"])) for row in rows]
        if unknown := [row["uri"] for row, uri in named if uri is None]:
            raise LabelError(
                f"{len(unknown)} rows of {labels_csv} name no image of the archive, such as {unknown[0]}; correct "
                "them, or pass the archive that they are of"
            )
        labels: dict[str, str] = {}
        for row, uri in named:
            if uri is not None and (other := labels.setdefault(uri, row["label"])) != row["label"]:
                raise LabelError(f"{labels_csv}: {row['uri']} is labelled {other} and {row['label']}; leave one out")
        pairs = sorted(labels.items())
    if len({label for _, label in pairs}) < 2:
        raise LabelError(
            f"found {len({label for _, label in pairs})} class in {len(pairs)} images; at least 2 are needed: put the "
            "images into a folder per class, or pass --labels"
        )
    return pairs


def split_images(
    pairs: list[tuple[str, str]], train_fraction: float, seed: int, unseen: Collection[str] = ()
) -> list[LabelledImage]:
    """Split each class at random into training and test images (the paper: half and half); unseen labels only test.

    Every class keeps at least one image in each part.

    Raises:
        LabelError: a class has a single image, the fraction is outside (0, 1) or leaves fewer images than classes in
            one part, or an unseen label does not exist.
    """
    if unknown := sorted(set(unseen) - {label for _, label in pairs}):
        raise LabelError(f"--unseen {','.join(unseen)}: no image is labelled {unknown[0]}")
    trained = [(uri, label) for uri, label in pairs if label not in unseen]
    if len({label for _, label in trained}) < 2:
        raise LabelError(f"--unseen {','.join(unseen)} leaves fewer than 2 classes to train on; name fewer")
    training = _training(trained, train_fraction, seed, unseen)
    return [LabelledImage(uri, label, "train" if uri in training else "test") for uri, label in pairs]


def _training(pairs: list[tuple[str, str]], train_fraction: float, seed: int, unseen: Collection[str]) -> set[str]:
    """Choose the URIs of training images; unseen labels, which no pair has, are for messages."""
    if not 0 < train_fraction < 1:
        raise LabelError(f"--train-fraction is {train_fraction}; it must lie between 0 and 1")
    if single := sorted(label for label, count in Counter(label for _, label in pairs).items() if count < 2):
        names = ",".join([*unseen, *single])
        raise LabelError(
            f"classes with a single image: {', '.join(single)}; each class needs one image to train and one to test: "
            f"add images, take them out of the archive, or only test with them: --unseen {shlex.quote(names)}"
        )
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 -- slow, and only this needs it

    labels = [label for _, label in pairs]
    try:
        train, _ = train_test_split(range(len(pairs)), train_size=train_fraction, random_state=seed, stratify=labels)
    except ValueError as error:  # scikit-learn's message names the class or fraction at fault
        raise LabelError(
            f"cannot split {len(pairs)} images by --train-fraction {train_fraction}: {error}; give one nearer to 0.5"
        ) from error
    training = {pairs[i][0] for i in train}
    classes: dict[str, set[str]] = defaultdict(set)
    for uri, label in pairs:
        classes[label].add(uri)
    for members in classes.values():
        if members <= training:  # scikit-learn gives no test image to classes that are too small
            training.remove(min(members))
        elif not members & training:
            training.add(min(members))
    return training


def split_to_csv(images: Iterable[LabelledImage]) -> str:
    """Format the split as CSV text with the header `uri,label,split`."""
    return _to_csv(LabelledImage._fields, images)


def labels_to_csv(pairs: Iterable[tuple[str, str]]) -> str:
    """Format (uri, label) pairs as CSV text with the header `uri,label`, which `label_images` reads."""
    return _to_csv(("uri", "label"), pairs)


def _to_csv(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def read_split(uri: str) -> list[LabelledImage]:
    """Read a split CSV.

    Raises:
        LabelError: it cannot be read, lacks a column, has an empty label or a split other than train and test, or
            contradicts itself.
    """
    rows = _labelled(uri, read_rows(uri, LabelledImage._fields))
    if wrong := [row["split"] for row in rows if row["split"] not in {"train", "test"}]:
        raise LabelError(f"{uri}: split is {wrong[0]!r} in {len(wrong)} rows; it takes train and test")
    images: dict[str, LabelledImage] = {}
    for row in rows:
        image = LabelledImage(row["uri"], row["label"], "train" if row["split"] == "train" else "test")
        if (other := images.setdefault(image.uri, image)) != image:
            said = " and ".join(f"{i.label}, {i.split}" for i in (other, image))
            raise LabelError(f"{uri}: {image.uri} has two rows: {said}; leave one out")
    return list(images.values())


def _labelled(uri: str, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Strip white space around the labels of rows; an empty label is an error."""
    if empty := [row["uri"] for row in rows if not row["label"].strip()]:
        raise LabelError(f"{uri}: {empty[0]} has an empty label; leave its row out, or give it one")
    return [{**row, "label": row["label"].strip()} for row in rows]


def read_rows(uri: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read the rows of a CSV that has at least these columns; the first column identifies a row.

    Empty lines, and lines of commas only, are skipped.

    Raises:
        LabelError: it cannot be read, has no rows, lacks a column or has it twice, or a row has more or fewer fields
            than the header, or nothing in the first column; the message names the line.
    """
    try:
        fs, path = file_system(uri)
        with fs.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            (_, header), *lines = [*_records(uri, file)] or [(0, [])]
    except RsirError:
        raise
    except Exception as error:  # each store has its own family of errors
        raise LabelError(
            f"{uri}: cannot be read as CSV: {error}; check address and credentials, or save it as CSV in UTF-8"
        ) from error
    header = [name.strip() for name in header]
    if wrong := [column for column in columns if header.count(column) != 1]:
        raise LabelError(
            f"{uri}: expected rows with the columns {','.join(columns)}, each once, but {wrong[0]} is there "
            f"{header.count(wrong[0])} times; its first line is {','.join(header)!r}"
        )
    if not lines:
        raise LabelError(f"{uri}: expected rows with the columns {','.join(columns)}, but there is only the header")
    rows = [_row(f"{uri}:{number}", header, fields) for number, fields in lines]
    if unnamed := [number for (number, _), row in zip(lines, rows, strict=True) if not row[columns[0]].strip()]:
        raise LabelError(f"{uri}:{unnamed[0]}: {columns[0]} is empty; give it, or remove the line")
    return rows


def _records(uri: str, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Parse non-empty records, each with the line on which it begins; quoted fields may span several lines."""
    reader, line = csv.reader(file, strict=True), 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:  # strict, because an unclosed quotation mark would swallow the rows after it
        raise LabelError(
            f"{uri}:{line}: cannot be read as CSV: {error}; close each quotation mark right before a comma or the "
            "line's end, and double one that is part of a name"
        ) from error


def _row(where: str, header: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) == len(header):
        return dict(zip(header, fields, strict=True))
    remedy = (
        "put a name that contains a comma into double quotes"
        if len(fields) > len(header)
        else "give every column, with nothing between its commas where it is empty"
    )
    raise LabelError(
        f"{where}: {','.join(fields)[:200]!r} has {len(fields)} fields, but the header {','.join(header)!r} has "
        f"{len(header)}; {remedy}"
    )
