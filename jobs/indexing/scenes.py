"""Replace scenes in a listing by their tiles; the index remembers how each scene is cut, so most runs survey none."""

import logging
from typing import Any, NamedTuple

import pyarrow as pa

from jobs.indexing.options import IndexConfig
from rsir_core import schemas
from rsir_core.imagery.tile_grid import may_be_scenes, with_tiles
from rsir_core.index.diff import anti, of_the_file
from rsir_core.index.index import Index
from rsir_core.index.layout import KEY
from rsir_core.index.writer import IndexWriter

log = logging.getLogger(__name__)


class Scenes(NamedTuple):
    """Hold the listing with scenes cut into tiles, and the scenes that failed.

    Attributes:
        listing: with tiles in place of the scenes; scenes that cannot be read are kept as they are.
        skipped: number of tiles that are mostly nodata and left out.
        unreadable: `image_id` and `etag` of scenes whose headers could not be read in this run.
        failures: metadata of their rows in `failures` (see `describing.WRITTEN`).
    """

    listing: pa.Table
    skipped: int
    unreadable: pa.Table
    failures: list[dict[str, Any]]


def cut_scenes(index: Index, writer: IndexWriter | None, listing: pa.Table, config: IndexConfig) -> Scenes:
    """Replace scenes by their tiles if the options ask for it; the index remembers how each scene is cut.

    Args:
        index: holds the surveys of earlier runs.
        writer: the run's writer; None in a dry run, which writes nothing.
        listing: the archive's current listing; schema `schemas.LISTING`.
        config: the job's options.
    """
    tiling = config.tiling
    none = listing.select(KEY).slice(0, 0)
    if tiling is None:
        return Scenes(listing, 0, none, [])
    known = index.scenes(str(tiling))
    failed = none if config.retry_failed else of_the_file(index)
    unknown = anti(anti(may_be_scenes(listing), known), failed)
    if len(unknown) == 0:
        return Scenes(*with_tiles(listing, known), none, [])
    log.info("%d large files to survey", len(unknown))
    from jobs.indexing.surveying import survey, write_failures  # noqa: PLC0415 -- brings Ray

    found = survey(unknown, tiling, config, writer)
    good, bad = found.filter(found[schemas.KIND].is_null()), found.filter(found[schemas.KIND].is_valid())
    written = write_failures(bad, index) if len(bad) and writer else []
    known = pa.concat_tables([known, good.select(schemas.SCENES.names)])
    return Scenes(*with_tiles(listing, known), bad.select(KEY), written)
