"""From a listing with scenes to one with their tiles: headers of new and changed scenes are read on the cluster.

In processes of their own: what hangs or crashes GDAL by its header is a failure, as an image is that does so.
"""

import logging
import time
from typing import Any, Final, NamedTuple

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy

from jobs.indexing.describing import DESCRIBED, write_described
from jobs.indexing.options import IndexConfig
from jobs.pipeline.cluster import joined, tables_of
from jobs.pipeline.stage import actor_count
from rsir_core import schemas
from rsir_core.imagery.sandbox import JsonObject, Reader, memory_for
from rsir_core.imagery.survey import SURVEYED, survey_files, survey_scene
from rsir_core.imagery.tiling import Tiling, may_be_scenes, with_tiles
from rsir_core.index.diff import anti, of_the_file
from rsir_core.index.index import Index
from rsir_core.index.layout import KEY
from rsir_core.index.writer import IndexWriter, write_rows

log = logging.getLogger(__name__)

PER_TASK: Final = 64
AT_ONCE: Final = 4  # files per actor: it mostly waits for a store
PER_COMMIT: Final = 1000


class Scenes(NamedTuple):
    """Hold the listing with scenes cut into tiles, and the scenes that failed.

    Attributes:
        listing: with their tiles in their place; those that cannot be read are left as they were.
        skipped: tiles that are mostly nodata, and left out.
        unreadable: `image_id` and `etag` of scenes whose header could not be read now.
        failures: of these, metadata of what was written (see `describing.WRITTEN`).
    """

    listing: pa.Table
    skipped: int
    unreadable: pa.Table
    failures: list[dict[str, Any]]


class SurveyScenes:
    """Stage: listed files to how each is cut (schema `schemas.LISTING` to `SURVEYED`).

    Args:
        tiling: how they are to be cut.
        config: of the job: its limits of pixels and seconds.
        readers: processes.
    """

    def __init__(self, tiling: Tiling, config: IndexConfig, readers: int) -> None:
        self._tiling, self._max_pixels = tiling, config.max_pixels
        limits = config.image_seconds, memory_for(config.max_pixels)
        self._readers: list[Reader[JsonObject]] = [Reader(survey_scene, *limits) for _ in range(readers)]

    def __call__(self, listing: pa.Table) -> pa.Table:
        """Look into one block of files."""
        return survey_files(listing, self._readers, self._tiling, self._max_pixels)


def cut_scenes(index: Index, writer: IndexWriter | None, listing: pa.Table, config: IndexConfig) -> Scenes:
    """Put tiles in the place of scenes, if that is asked for; how they are cut is remembered in the index.

    Args:
        index: what is known from earlier runs.
        writer: of the run; None: nothing may be written.
        listing: the archive now; schema `schemas.LISTING`.
        config: of the job.
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
    log.info("%d large files to look into", len(unknown))
    with joined(config.address):
        found = _survey(unknown, tiling, config, writer)
    good, bad = found.filter(found[schemas.KIND].is_null()), found.filter(found[schemas.KIND].is_valid())
    written = write_described(_failures(bad, index), index.uri).to_pylist() if len(bad) and writer else []
    known = pa.concat_tables([known, good.select(schemas.SCENES.names)])
    return Scenes(*with_tiles(listing, known), bad.select(KEY), written)


def _survey(unknown: pa.Table, tiling: Tiling, config: IndexConfig, writer: IndexWriter | None) -> pa.Table:
    """Look into scenes and commit what was found as it comes; schema `SURVEYED`."""
    blocks = [unknown.slice(start, PER_TASK) for start in range(0, len(unknown), PER_TASK)]
    surveyed = ray.data.from_arrow(blocks).map_batches(
        SurveyScenes, fn_constructor_args=(tiling, config, min(AT_ONCE, len(unknown))), num_cpus=1,
        compute=ActorPoolStrategy(size=min(actor_count(0), len(blocks))), batch_size=None, batch_format="pyarrow",
    )  # fmt: skip
    pieces, done = [SURVEYED.empty_table()], 0
    for found in tables_of(surveyed, PER_COMMIT):
        good = found.filter(found[schemas.KIND].is_null())
        if len(good) and writer is not None:
            writer.commit("scenes", [write_rows(writer.index.uri, "scenes", good)], "append")
        pieces.append(found)
        done += len(found)
        log.info("%d of %d looked into, %d of these cannot be read", done, len(unknown), len(found) - len(good))
    return pa.concat_tables(pieces)


def _failures(bad: pa.Table, index: Index) -> pa.Table:
    """Make rows of schema `describing.DESCRIBED` of failures."""
    columns = {name: bad[name] if name in bad.column_names else pa.nulls(len(bad)) for name in DESCRIBED.names}
    columns |= {
        schemas.BUNDLE: pa.repeat(index.bundle().fingerprint, len(bad)),
        "began": pa.repeat(time.time(), len(bad)),
    }
    return pa.table(columns).cast(DESCRIBED)
