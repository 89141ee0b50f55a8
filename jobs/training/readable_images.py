"""Find out which training images can be read, before anything is trained on them."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy.typing as npt

from jobs.meter import Meter
from rsir_core.archive.labels import LabelledImage
from rsir_core.errors import ImageError, LabelError
from rsir_core.imagery.reading import Reading, pictures_of

log = logging.getLogger("jobs.finetune_classifier")


class Checked(NamedTuple):
    """Say of a file whether it can be read.

    Attributes:
        uri: of the file.
        message: why it cannot be read; None: it can.
        refused: its store refuses it.
    """

    uri: str
    message: str | None
    refused: bool


def check(uris: Sequence[str], reading: Reading) -> Iterator[Checked]:
    """Read files, one after the other."""
    # In a process of its own, as the index job reads: what hangs a decoder, or crashes it, is found out here.
    for uri, read in zip(uris, pictures_of(list(uris), reading), strict=True):
        error = read if isinstance(read, ImageError) else None
        yield Checked(uri, None if error is None else str(error), error is not None and error.is_refused)


def check_batch(batch: dict[str, npt.NDArray[Any]], reading: Reading) -> dict[str, Any]:
    """Read the files of column `uri`; returns the columns of `Checked`."""
    return dict(zip(Checked._fields, map(list, zip(*check(list(batch["uri"]), reading), strict=True)), strict=True))


def readable(images: Sequence[LabelledImage], reading: Reading, on_cluster: bool) -> list[LabelledImage]:
    """Keep the images that can be read, and name the others on the log.

    Args:
        images: to read.
        reading: how.
        on_cluster: read them by tasks of the cluster that this process is connected to.

    Raises:
        LabelError: none can be read; or a store refuses some, which it may not do at the next try: that would be
            another training.
    """
    uris = [image.uri for image in images]
    log.info("reading %d training images once, to see which can be", len(uris))
    found: Iterable[Checked] = _on_cluster(uris, reading) if on_cluster else _here(uris, reading)
    by_uri = {one.uri: one for one in found}
    if refused := [one for one in by_uri.values() if one.refused]:
        raise LabelError(
            f"{len(refused)} training images are refused by their store, for example: {refused[0].message}; "
            "check credentials and network, then run this again"
        )
    messages = [message for uri in uris if (message := by_uri[uri].message) is not None]
    for message in messages:
        log.warning("left out: %s", message)
    if len(messages) == len(uris):
        raise LabelError(
            f"none of the {len(uris)} training images can be read, for example: {messages[-1]}; check the archive"
        )
    return [image for image in images if by_uri[image.uri].message is None]


def _on_cluster(uris: list[str], reading: Reading) -> Iterator[Checked]:
    import ray.data  # noqa: PLC0415 -- not needed in this process alone

    files = ray.data.from_items([{"uri": uri} for uri in uris])
    for row in files.map_batches(partial(check_batch, reading=reading), batch_size=32).take_all():
        yield Checked(**row)


def _here(uris: list[str], reading: Reading) -> Iterator[Checked]:
    with Meter(len(uris), log) as meter:
        for done, one in enumerate(check(uris, reading), 1):
            yield one
            meter.mark(done)
            meter.show(f"{done} of {len(uris)} read, {meter.rate:.1f} images/s, {meter.time_left}")
