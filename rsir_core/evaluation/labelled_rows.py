"""Select the rows of an index to rank, and label them from a split CSV, else from folder names."""

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rsir_core import schemas
from rsir_core.archive.file_names import NamedValues, tell_apart
from rsir_core.archive.labels import folder_label, read_split
from rsir_core.errors import LabelError
from rsir_core.models.bundle import SPLIT

log = logging.getLogger(__name__)


def label_rows(features: pa.Table, split: str | None) -> tuple[pa.Table, list[str], dict[str, Any]]:
    """Label the rows to evaluate; returns them, their labels, and where both come from, for the protocol.

    Raises:
        LabelError: no label for a row, or no row for any test image.
    """
    if split is None:
        if len(features[schemas.CLASS_PROBABILITIES][0]):
            log.warning("no --split: every image is scored; those that a classifier was trained on flatter it")
        labels = [folder_label(image_id) for image_id in features[schemas.IMAGE_ID].to_pylist()]
        return features, labels, {"images": "all of the index", "labels": "folder names"}
    tests = {image.uri: image.label for image in read_split(split) if image.split == "test"}
    if not tests:
        raise LabelError(f"{split} has no row whose split is test; leave --split out to evaluate every image")
    places = match(list(tests), features)
    missing = [uri for uri in tests if uri not in places]
    if not places:
        raise LabelError(
            f"none of the {len(tests)} test images of {split} is in the index, such as {', '.join(missing[:3])}; "
            f"its first is {features[schemas.URI][0]}: pass the split file of this archive"
        )
    if missing:
        log.warning("%d of %d test images are not in the index, such as %s", len(missing), len(tests), missing[0])
    chosen = sorted((place, tests[uri]) for uri, place in places.items())
    notes = {
        "images": "test images of the split file",
        "labels": "split file",
        "split": split,
        "split_test_images": len(tests),
        "split_not_in_index": len(missing),
    }
    return features.take([place for place, _ in chosen]), [label for _, label in chosen], notes


def match(uris: Sequence[str], features: pa.Table) -> dict[str, int]:
    """Find the row of each URI that has one.

    By URI; where not one URI is known, the archive has moved since, and an image id that ends the URI's path counts.
    Either may have another Unicode form than the index has.

    Raises:
        LabelError: two URIs end in one image id.
    """
    known = NamedValues({uri: i for i, uri in enumerate(features[schemas.URI].to_pylist())})
    places = {uri: place for uri in uris if (place := known.get(uri)) is not None}
    if not places:
        known = NamedValues({image_id: i for i, image_id in enumerate(features[schemas.IMAGE_ID].to_pylist())})
        for uri in uris:
            parts = uri.split("/")
            endings = ("/".join(parts[start:]) for start in range(len(parts)))
            place = next((found for ending in endings if (found := known.get(ending)) is not None), None)
            if place is not None:
                places[uri] = place
    owner: dict[int, str] = {}
    for uri, place in places.items():
        if owner.setdefault(place, uri) != uri:
            first, second = tell_apart(owner[place], uri)
            raise LabelError(
                f"{first} and {second} both end in the image id {features[schemas.IMAGE_ID][place]}; "
                "pass a split file with the URIs of the index"
            )
    return places


def count_trained_on(bundle: str, features: pa.Table) -> int | None:
    """Count how many of these rows a bundle's classifier was trained on, by its own split; None: it has none."""
    try:
        split = read_split(f"{bundle.rstrip('/')}/{SPLIT}")
        count = len(match([image.uri for image in split if image.split == "train"], features))
    except LabelError as error:
        log.warning("whether %s was trained on images that are ranked is not known: %s", bundle, error)
        return None
    if count:
        log.warning("%s was trained on %d of the %d images to rank: they flatter it", bundle, count, len(features))
    return count
