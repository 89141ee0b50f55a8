"""Find out which training images can be read, and how large they are, before anything is trained on them."""

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from rsir_core.archive.labels import LabelledImage
from rsir_core.errors import ImageError, LabelError
from rsir_core.imagery.reading import Reading, pictures_of

log = logging.getLogger("jobs.finetune_classifier")


def why_unreadable(batch: dict[str, npt.NDArray[Any]], reading: Reading) -> dict[str, Any]:
    """Check files of column `uri`.

    Returns:
        columns `uri`, `message` (null: it can be read), `refused` (by its store) and `side` (root of the pixels; 0: it
        cannot be read).
    """
    # In a process of its own, as the index job reads: what hangs a decoder, or crashes it, is found out here.
    found: dict[str, list[Any]] = {"uri": list(batch["uri"]), "refused": [], "message": [], "side": []}
    for read in pictures_of(found["uri"], reading):
        error = read if isinstance(read, ImageError) else None
        found["message"].append(error and str(error))
        found["refused"].append(error is not None and error.is_refused)
        found["side"].append(0.0 if isinstance(read, ImageError) else math.sqrt(read.pixels.size / 3))
    return found


def readable(images: Sequence[LabelledImage], reading: Reading, on_cluster: bool) -> dict[str, float]:
    """Find the images that can be read, and name the others on the log.

    Args:
        images: to read.
        reading: how.
        on_cluster: read them by tasks of the cluster that this process is connected to.

    Returns:
        side in pixels (root of their number) by URI, in the images' order, of those that can be read.

    Raises:
        LabelError: none can be read; or a store refuses some, which it may not do at the next try: that would be
            another training.
    """
    uris = np.array([image.uri for image in images], object)
    if on_cluster:
        import ray.data  # noqa: PLC0415 -- not needed in this process alone

        files = ray.data.from_items([{"uri": uri} for uri in uris])
        found = files.map_batches(partial(why_unreadable, reading=reading), batch_size=32).take_all()
    else:
        columns = why_unreadable({"uri": uris}, reading)
        found = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    messages = {row["uri"]: row["message"] for row in found if row["message"] is not None}
    if refused := [row["message"] for row in found if row["refused"]]:
        raise LabelError(
            f"{len(refused)} training images are refused by their store, for example: {refused[0]}; "
            "check credentials and network, then run this again"
        )
    for message in messages.values():
        log.warning("left out: %s", message)
    if len(messages) == len(images):
        raise LabelError(
            f"none of the {len(images)} training images can be read, for example: {message}; check the archive"
        )
    sides = {row["uri"]: row["side"] for row in found}
    return {image.uri: sides[image.uri] for image in images if image.uri not in messages}
