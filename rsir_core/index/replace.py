"""A file of published rows without some of them, which are gone or have changed."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas
from rsir_core.index.delta import TableFile, WrittenFile
from rsir_core.index.index import Index
from rsir_core.index.stored_objects import read_with_objects
from rsir_core.index.writer import write_rows


class Replaced(NamedTuple):
    """Say what becomes of a file of `features`.

    Attributes:
        removed: the file.
        kept: what holds its other rows; None: it has no others.
    """

    removed: TableFile
    kept: WrittenFile | None


def without_rows(index: Index, file: TableFile, leaving: pa.Array) -> Replaced | None:
    """Write a file of `features` anew without some rows, those that stay in their runs; nothing is visible yet.

    Holds the rows of this one file; of a file that has none of these rows only the ids are read.

    Args:
        index: whose it is.
        file: of its newest version.
        leaving: image ids of the rows to leave out.

    Returns:
        None: it has none of them, and stays.
    """
    ids = index.read_columns(file, [schemas.IMAGE_ID])[schemas.IMAGE_ID]
    stays = ~np.asarray(pc.is_in(ids, leaving))
    if stays.all():
        return None
    if not stays.any():
        return Replaced(file, None)
    table, clusters = read_with_objects(index, file)
    left = None if clusters is None else clusters.keep(stays)
    return Replaced(file, write_rows(index.uri, "features", table.filter(pa.array(stays)), left))
