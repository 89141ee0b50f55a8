"""Replace scenes in a listing by their tiles; headers of new and changed scenes are surveyed on the cluster.

They are read in sandboxed processes, so that a header that hangs or crashes GDAL becomes a failure like any image's.
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
from rsir_core.imagery.tile_grid import Tiling, may_be_scenes, with_tiles
from rsir_core.imagery.tile_survey import SURVEYED, survey_files, survey_scene
from rsir_core.index.diff import anti, of_the_file
from rsir_core.index.index import Index
from rsir_core.index.layout import KEY
from rsir_core.index.writer import IndexWriter, write_rows

log = logging.getLogger(__name__)

FILES_PER_TASK: Final = 64
READERS_PER_ACTOR: Final = 4  # each mostly waits for its store
FILES_PER_COMMIT: Final = 1000


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


class SurveyScenes:
    """Ray Data stage: survey listed files (schema `schemas.LISTING` to `SURVEYED`).

    Args:
        tiling: how scenes are cut.
        config: the job's options; its limits of pixels and seconds apply.
        readers: number of reading processes.
    """

    def __init__(self, tiling: Tiling, config: IndexConfig, readers: int) -> None:
        self._tiling, self._max_pixels = tiling, config.max_pixels
        limits = config.image_seconds, memory_for(config.max_pixels)
        self._readers: list[Reader[JsonObject]] = [Reader(survey_scene, *limits) for _ in range(readers)]

    def __call__(self, listing: pa.Table) -> pa.Table:
        """Survey one block of files."""
        return survey_files(listing, self._readers, self._tiling, self._max_pixels)


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
    with joined(config.address):
        found = _survey(unknown, tiling, config, writer)
    good, bad = found.filter(found[schemas.KIND].is_null()), found.filter(found[schemas.KIND].is_valid())
    written = write_described(_failures(bad, index), index.uri).to_pylist() if len(bad) and writer else []
    known = pa.concat_tables([known, good.select(schemas.SCENES.names)])
    return Scenes(*with_tiles(listing, known), bad.select(KEY), written)


def _survey(unknown: pa.Table, tiling: Tiling, config: IndexConfig, writer: IndexWriter | None) -> pa.Table:
    """Look into scenes and commit what was found as it comes; schema `SURVEYED`."""
    blocks = [unknown.slice(start, FILES_PER_TASK) for start in range(0, len(unknown), FILES_PER_TASK)]
    surveyed = ray.data.from_arrow(blocks).map_batches(
        SurveyScenes, fn_constructor_args=(tiling, config, min(READERS_PER_ACTOR, len(unknown))), num_cpus=1,
        compute=ActorPoolStrategy(size=min(actor_count(0), len(blocks))), batch_size=None, batch_format="pyarrow",
    )  # fmt: skip
    pieces, done = [SURVEYED.empty_table()], 0
    for found in tables_of(surveyed, FILES_PER_COMMIT):
        good = found.filter(found[schemas.KIND].is_null())
        if len(good) and writer is not None:
            writer.commit("scenes", [write_rows(writer.index.uri, "scenes", good)], "append")
        pieces.append(found)
        done += len(found)
        log.info("%d of %d surveyed, %d of these cannot be read", done, len(unknown), len(found) - len(good))
    return pa.concat_tables(pieces)


def _failures(bad: pa.Table, index: Index) -> pa.Table:
    """Convert failed surveys to rows of schema `describing.DESCRIBED`."""
    columns = {name: bad[name] if name in bad.column_names else pa.nulls(len(bad)) for name in DESCRIBED.names}
    columns |= {
        schemas.BUNDLE: pa.repeat(index.bundle().fingerprint, len(bad)),
        "began": pa.repeat(time.time(), len(bad)),
    }
    return pa.table(columns).cast(DESCRIBED)
