"""The rows of files: results with their ranks, and labelled images with what the index knows of them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas


def ranked_rows(rows: pa.Table, offset: int = 0) -> pa.Table:
    """Add the rank to results, best first, of which so many better ones are left out."""
    ranks = pa.array(np.arange(offset + 1, offset + 1 + len(rows)), pa.int32())
    return rows.add_column(0, schemas.RANK, ranks)


def training_pairs(labels: pa.Table, rows: pa.Table) -> list[tuple[str, str]]:
    """Pair labels with the addresses that their images have now; images that are no longer in the index are left out.

    Args:
        labels: of schema `schemas.LABELS`.
        rows: of the images that are in the index, in any order, with the columns `image_id` and `uri`.
    """
    uris = dict(zip(rows[schemas.IMAGE_ID].to_pylist(), rows[schemas.URI].to_pylist(), strict=True))
    found = zip(labels[schemas.IMAGE_ID].to_pylist(), labels[schemas.LABEL].to_pylist(), strict=True)
    return [(uris[image_id], label) for image_id, label in found if image_id in uris]


def labelled_rows(labels: pa.Table, rows: pa.Table) -> pa.Table:
    """Join labels with the indexed rows of their images; what is no longer in the index has nulls.

    Args:
        labels: of schema `schemas.LABELS`.
        rows: of the images that are in the index, in any order, with the column `image_id`.

    Returns:
        The labels in their order; `labelled` is when.
    """
    places = pc.index_in(labels[schemas.IMAGE_ID], rows[schemas.IMAGE_ID].combine_chunks())
    found = rows.drop_columns([schemas.IMAGE_ID]).combine_chunks().take(places.combine_chunks())
    is_missing = pc.is_null(found[schemas.URI])
    now = pc.if_else(is_missing, labels[schemas.URI], found[schemas.URI])  # the archive may have been moved
    first = labels.drop_columns([schemas.COLLECTION]).rename_columns({schemas.TIME: "labelled"})
    joined = first.set_column(1, schemas.URI, now)
    for name in found.column_names:
        if name != schemas.URI:
            joined = joined.append_column(found.schema.field(name).with_nullable(True), found[name])
    return joined
