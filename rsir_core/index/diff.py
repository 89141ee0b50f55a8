"""Diff a listing with an index: plan what a run of the index job has to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas
from rsir_core.archive.listing import ImageFile
from rsir_core.errors import REFUSED
from rsir_core.index.index import Index
from rsir_core.index.layout import KEY


@dataclass(frozen=True)
class Plan:
    """Hold what is new, changed and gone since the published version, and what needs describing.

    Attributes:
        listing: the archive's current listing; schema `schemas.LISTING`.
        to_describe: its rows without a stored embedding and, unless failures are retried, without a known failure of
            the file itself; files that the store refused are always retried.
        left_out: number of images that are known to fail and not retried.
        new: number of images that are neither published nor known to fail.
        changed: number of images that are published, or known to fail, with another etag.
        gone: ids of images that are published but no longer listed.
        published: number of published images.
        stale_failures: `image_id` and `etag` of failures of files that changed, are gone, were described since, or are
            to be retried.
    """

    listing: pa.Table
    to_describe: pa.Table
    left_out: int
    new: int
    changed: int
    gone: pa.Array
    published: int
    stale_failures: pa.Table


def listing_table(files: Iterable[ImageFile]) -> pa.Table:
    """Convert a listing to an Arrow table, piece by piece, since Arrow strings take a tenth of Python's memory."""
    remaining = iter(files)
    pieces = [_piece(piece) for piece in iter(lambda: list(islice(remaining, 10_000)), [])]
    return pa.Table.from_batches(pieces, schemas.LISTING)


def _piece(files: list[ImageFile]) -> pa.RecordBatch:
    columns: dict[str, list[Any]] = {name: [getattr(f, name) for f in files] for name in schemas.LISTING.names}
    return pa.RecordBatch.from_pydict(columns, schemas.LISTING)


def make_plan(index: Index, listing: pa.Table, retry_failed: bool) -> Plan:
    """Compare a listing with the index's tables; only keys are held in memory, about 200 bytes per image."""
    published, stored, failed = (index.keys(name) for name in ("features", "embeddings", "failures"))
    keep_failures = failed.slice(0, 0) if retry_failed else anti(semi(of_the_file(index), listing), stored)
    known = pa.concat_tables([published, failed])
    unknown = anti(listing, known, KEY)  # no published or failed row of the same content
    return Plan(
        listing=listing,
        to_describe=anti(anti(listing, stored, KEY), keep_failures, KEY),
        left_out=len(keep_failures),
        new=len(anti(unknown, known, [schemas.IMAGE_ID])),
        changed=len(semi(unknown, known, [schemas.IMAGE_ID])),
        gone=anti(published, listing, [schemas.IMAGE_ID])[schemas.IMAGE_ID].combine_chunks(),
        published=len(published),
        stale_failures=anti(failed, keep_failures, KEY),
    )


def of_the_file(index: Index) -> pa.Table:
    """List the keys of failures that are the file's fault, not the store's."""
    failed = index.keys("failures", [schemas.STAGE, schemas.KIND])
    stores = pc.and_(pc.equal(failed[schemas.STAGE], "read"), pc.is_in(failed[schemas.KIND], pa.array(REFUSED)))
    return failed.filter(pc.invert(stores)).select(KEY)


def semi(left: pa.Table, right: pa.Table, on: list[str] = KEY) -> pa.Table:
    """Select rows of `left` with a partner in `right`, in the order of `left`."""
    return _join(left, right, on, "left semi")


def anti(left: pa.Table, right: pa.Table, on: list[str] = KEY) -> pa.Table:
    """Select rows of `left` without a partner in `right`, in the order of `left`."""
    return _join(left, right, on, "left anti")


def _join(left: pa.Table, right: pa.Table, on: list[str], kind: str) -> pa.Table:
    if len(left) == 0 or len(right) == 0:  # as on a first run, where a join would hold two more copies of the keys
        return left if kind == "left anti" else left.slice(0, 0)
    # Joined by key and position only: Arrow's join takes no list columns and promises no order.
    keys = left.select(on).append_column("position", pa.array(np.arange(len(left))))
    return at_places(left, keys.join(right.select(on), on, join_type=kind)["position"])


def at_places(table: pa.Table, places: pa.ChunkedArray) -> pa.Table:
    """Select rows by position, in the table's order; `take` would fail on string columns of more than 2 GiB."""
    mask = np.zeros(len(table), np.bool_)
    mask[np.asarray(places)] = True
    return table.filter(pa.array(mask))
