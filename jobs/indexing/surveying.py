"""Survey the headers of new and changed scenes on the cluster.

They are read in sandboxed processes, so that a header that hangs or crashes GDAL becomes a failure like any image's.
"""

import logging
import time
from typing import Any, Final

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy

from jobs.indexing.describing import DESCRIBED, write_described
from jobs.indexing.options import IndexConfig
from jobs.meter import Meter
from jobs.pipeline.cluster import joined
from jobs.pipeline.rows import tables_of
from jobs.pipeline.stage import actor_count
from rsir_core import schemas
from rsir_core.imagery.sandbox import JsonObject, Reader, memory_for
from rsir_core.imagery.tile_grid import Tiling
from rsir_core.imagery.tile_survey import SURVEYED, survey_files, survey_scene
from rsir_core.index.index import Index
from rsir_core.index.writer import IndexWriter, write_rows

log = logging.getLogger(__name__)

FILES_PER_TASK: Final = 64
READERS_PER_ACTOR: Final = 4  # each mostly waits for its store
FILES_PER_COMMIT: Final = 1000


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


def survey(unknown: pa.Table, tiling: Tiling, config: IndexConfig, writer: IndexWriter | None) -> pa.Table:
    """Look into scenes and commit what was found as it comes; schema `SURVEYED`."""
    with joined(config.address, verbose=config.verbose):
        return _survey(unknown, tiling, config, writer)


def _survey(unknown: pa.Table, tiling: Tiling, config: IndexConfig, writer: IndexWriter | None) -> pa.Table:
    blocks = [unknown.slice(start, FILES_PER_TASK) for start in range(0, len(unknown), FILES_PER_TASK)]
    surveyed = ray.data.from_arrow(blocks).map_batches(
        SurveyScenes, fn_constructor_args=(tiling, config, min(READERS_PER_ACTOR, len(unknown))), num_cpus=1,
        compute=ActorPoolStrategy(size=min(actor_count(0), len(blocks))), batch_size=None, batch_format="pyarrow",
    )  # fmt: skip
    pieces, done, unreadable = [SURVEYED.empty_table()], 0, 0
    with Meter(len(unknown), log) as meter:
        for found in tables_of(surveyed, FILES_PER_COMMIT):
            good = found.filter(found[schemas.KIND].is_null())
            if len(good) and writer is not None:
                writer.commit("scenes", [write_rows(writer.index.uri, "scenes", good)], "append")
            pieces.append(found)
            done, unreadable = done + len(found), unreadable + len(found) - len(good)
            meter.mark(done)
            meter.show(f"{done} of {len(unknown)} surveyed, {unreadable} of these cannot be read, {meter.time_left}")
    return pa.concat_tables(pieces)


def write_failures(bad: pa.Table, index: Index) -> list[dict[str, Any]]:
    """Write failed surveys (schema `SURVEYED`) as uncommitted rows of `failures`; returns rows of `WRITTEN`."""
    columns = {name: bad[name] if name in bad.column_names else pa.nulls(len(bad)) for name in DESCRIBED.names}
    columns |= {
        schemas.BUNDLE: pa.repeat(index.bundle_settings().fingerprint, len(bad)),
        "began": pa.repeat(time.time(), len(bad)),
    }
    written: list[dict[str, Any]] = write_described(pa.table(columns).cast(DESCRIBED), index.uri).to_pylist()
    return written
