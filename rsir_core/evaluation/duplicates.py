"""Duplicates among the images of an index: what makes a score flattering, across the split most of all."""

import csv
import io
import logging
from functools import partial
from typing import Any, Final

import pyarrow as pa

from rsir_core import schemas
from rsir_core.archive.labels import read_split
from rsir_core.evaluation.labelled_rows import match
from rsir_core.imagery.reading import Reading, pictures_of
from rsir_core.retrieval.near_duplicates import PictureSignature, groups, near_pairs, same_pictures, signatures_of
from rsir_core.storage.filesystem import put_file

log = logging.getLogger(__name__)
SHOWN: Final = 100  # pairs in metrics.json; the CSV has all
COLUMNS: Final = ("first", "second", "kind", "difference", "first_split", "second_split", "first_uri", "second_uri")


def find_duplicates(
    features: pa.Table, split: str | None, reading: Reading
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Find duplicates: what `metrics.json` says of them, and all pairs (`COLUMNS`), those across the split first.

    Args:
        features: rows of the index, training images included, schema `schemas.FEATURES`.
        split: CSV that says which images train; only those that it names are looked at. None: that is not known.
        reading: how images are read.
    """
    place = {} if split is None else _split_of(features, split)
    if place:
        features, place = features.take(pa.array(sorted(place))), dict(enumerate(place[row] for row in sorted(place)))
    ids, uris = (features[name].to_pylist() for name in (schemas.IMAGE_ID, schemas.URI))
    near = near_pairs(schemas.unaveraged_features(features))
    wanted = sorted({row for pair in near for row in pair})
    looks = dict(
        zip(wanted, signatures_of([uris[row] for row in wanted], partial(pictures_of, reading=reading)), strict=True)
    )
    readable = {row: look for row, look in looks.items() if isinstance(look, PictureSignature)}
    if len(readable) < len(looks):
        log.warning("%d of %d images cannot be compared: they cannot be read any more", len(looks) - len(readable),
                    len(looks))  # fmt: skip
    pairs = same_pictures(near, readable)
    found = [
        dict(zip(COLUMNS, (ids[a], ids[b], kind, gap, place.get(a), place.get(b), uris[a], uris[b]), strict=True))
        for a, b, kind, gap in pairs
    ]
    found.sort(key=lambda pair: not _across(pair))
    across = sum(map(_across, found))
    if found:
        log.warning("%d pairs of images are one picture twice, %d of them across the split, such as %s and %s",
                    len(found), across, found[0]["first"], found[0]["second"])  # fmt: skip
    return {
        "images": len(features),
        "compared": len(readable),
        "unread": len(looks) - len(readable),
        "groups": len(groups(pairs)),
        "identical": sum(pair["kind"] == "identical" for pair in found),
        "re_encoded": sum(pair["kind"] == "re-encoded" for pair in found),
        "train_test": across if place else None,
        "pairs": found[:SHOWN],
    }, found


def write_duplicates(report: str, found: list[dict[str, Any]]) -> None:
    """Write all pairs as duplicates.csv into the report's folder."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    put_file(f"{report.rstrip('/')}/duplicates.csv", text.getvalue().encode())


def _across(pair: dict[str, Any]) -> bool:
    """Tell whether the models were trained on one image of a pair and are asked the other."""
    return {pair["first_split"], pair["second_split"]} == {"train", "test"}


def _split_of(features: pa.Table, split: str) -> dict[int, str]:
    """Map rows to `train` or `test`, for those that the split file names."""
    of_uri = {image.uri: image.split for image in read_split(split)}
    return {row: of_uri[uri] for uri, row in match(list(of_uri), features).items()}
