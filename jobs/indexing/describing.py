"""The stages from a listed file to a written row, as Ray Data runs them: read, describe, write.

On CPUs one actor does all three with one thread, because a reading task would take the core away from an actor. On GPUs
reading is a pool of CPU tasks of its own, so that a GPU never waits for a decoder.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, Dataset

from jobs.config import DescribingConfig, IndexConfig
from jobs.indexing.progress import STAGES
from jobs.indexing.reading import FAILURE, READ, Reading, images_of, read_batches, reader_of
from rsir_core import rows
from rsir_core.describe import Describer
from rsir_core.raster import read_in_turn
from rsir_core.reader import ReadFunction
from rsir_core.table import Index, TableName

ROWS_PER_FILE: Final = 1024  # about 2.5 MB of embeddings; `compact` merges them later
ROWS_HELD: Final = 500_000  # that an actor gathers before it writes them, where an image has several: 110 MB of results
READ_MEMORY: Final = 2 * 1024**3  # bytes reserved per reading task, so that large images do not overfill a node

WRITTEN: Final = pa.schema(
    [
        ("table", pa.string()),
        ("name", pa.string()),
        ("size", pa.int64()),  # bytes
        ("row_count", pa.int64()),
        ("failures", pa.string()),  # JSON: uri, stage, kind and message of each row of `failures`
        ("began", pa.float64()),  # unix seconds: when the first of its images was opened
        ("ended", pa.float64()),
        *((stage, pa.float64()) for stage in STAGES),  # seconds spent in it, over all rows
    ]
)
DESCRIBED: Final = pa.schema(
    [
        *(f.with_nullable(True) for f in rows.EMBEDDINGS),
        *FAILURE,
        pa.field("began", pa.float64()),
        pa.field("reading", pa.float64()),  # seconds
        pa.field("describing", pa.float64()),
    ]
)


class DescribeRead:
    """Stage: pixels in, descriptors out (schema `READ` to `DESCRIBED`); failures pass through."""

    def __init__(self, index: str, device: str) -> None:
        torch.set_num_threads(1)
        self.describer = Describer(Index(index).bundle(), device)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Describe one batch."""
        good, began = batch.filter(batch["pixels"].is_valid()), time.time()
        found = self.describer.describe(images_of(good))
        each = (time.time() - began) / max(len(good), 1)
        columns = {name: good[name] for name in READ.names if name in DESCRIBED.names}
        columns |= {
            rows.BUNDLE: pa.repeat(self.describer.bundle.fingerprint, len(good)),
            rows.REGION: pa.array([r._asdict() for r in found.regions], DESCRIBED.field(rows.REGION).type),
            rows.OBJECT_CLASS: pa.array([o and o.name for o in found.objects], pa.string()),
            rows.OBJECT_SCORE: pa.array([o and o.score for o in found.objects], pa.float32()),
            rows.OBJECT_BOX: pa.array(
                [o and o.box._asdict() for o in found.objects], DESCRIBED.field(rows.OBJECT_BOX).type
            ),
            rows.CLASS_PROBABILITIES: rows.to_vectors(found.class_probabilities),
            rows.EMBEDDING: rows.to_vectors(found.embedding),
            "describing": pa.repeat(each, len(good)),
        }
        described = pa.table([columns[name] for name in DESCRIBED.names], DESCRIBED)
        finite = np.isfinite(found.embedding).all(axis=1) & np.isfinite(found.class_probabilities).all(axis=1)
        bad = batch.filter(batch["pixels"].is_null())
        if not finite.all():  # one such row would keep all others from being published
            described = described.filter(pa.array(finite))
            bad = pa.concat_tables([bad, _not_finite(good.filter(pa.array(~finite)))])
        if len(bad) == 0:
            return described
        failures = {name: bad[name] if name in READ.names else pa.nulls(len(bad)) for name in DESCRIBED.names}
        failures[rows.BUNDLE] = pa.repeat(self.describer.bundle.fingerprint, len(bad))
        return pa.concat_tables([described, pa.table(failures).cast(DESCRIBED)])


def _not_finite(read: pa.Table) -> pa.Table:
    """Rows of schema `READ` as failures."""
    words = [f"{uri} is described by numbers that are not finite" for uri in read[rows.URI].to_pylist()]
    for name, values in ((rows.STAGE, "describe"), (rows.KIND, "error"), (rows.MESSAGE, words)):
        column = pa.array(words, pa.string()) if values is words else pa.repeat(pa.scalar(values), len(read))
        read = read.set_column(read.schema.get_field_index(name), name, column)
    return read


def write_described(described: pa.Table, index: str) -> pa.Table:
    """Write rows of schema `DESCRIBED` as uncommitted files; one row of metadata (schema `WRITTEN`) per file."""
    failed = described[rows.KIND].is_valid()
    parts: list[tuple[TableName, pa.Table]] = [
        ("embeddings", described.filter(described[rows.KIND].is_null())),
        ("failures", described.filter(failed)),
    ]
    written = []
    for name, table in parts:
        if len(table):
            began = time.time()
            file = Index(index).write_rows(name, table)
            ended = time.time()
            failures = table.select(rows.FAILURE_COLUMNS).to_pylist() if name == "failures" else []
            written.append(
                {
                    "table": name,
                    **file._asdict(),
                    "failures": json.dumps(failures),
                    "began": pc.min(table["began"]).as_py(),
                    "ended": ended,
                    "writing": ended - began,
                    **{stage: pc.sum(table[stage]).as_py() or 0.0 for stage in ("reading", "describing")},
                }
            )
    return pa.Table.from_pylist(written, WRITTEN)


class ReadDescribeWrite:
    """Stage: a block of listed files to metadata of what was written of them, in one actor."""

    def __init__(self, config: IndexConfig, reading: Reading) -> None:
        self.config, self.reading = config, reading
        reader_of(reading)  # it starts while the models are loaded
        self.describe = DescribeRead(config.index, "cpu")

    def __call__(self, block: pa.Table) -> pa.Table:
        """Read and describe batch by batch, so that pixels of one batch only are held; write once."""
        described = [self.describe(read) for read in read_batches(block, self.reading, self.config.batch_size)]
        return write_described(pa.concat_tables(described), self.config.index)


class Stages(NamedTuple):
    """The classes and functions that a listing goes through, and what makes the classes.

    Attributes:
        reading: how listed files are read.
        at_once: a block of listed files to metadata of what was written of them.
        of_read: batches of schema `READ` to rows; the second part of `at_once`.
        write: those rows to metadata; its third.
        rows_each: rows per image, at most, between the two.
        at_risk: images, at most, that actors may have in their hands together, so that a kill costs no more.
    """

    reading: Reading
    at_once: tuple[type, tuple[Any, ...]]
    of_read: tuple[type, tuple[Any, ...]]
    write: Callable[[pa.Table], pa.Table]
    rows_each: int = 1
    at_risk: int = sys.maxsize


def describe_files(
    config: IndexConfig, listing: pa.Table, gpu: str = "cuda", function: ReadFunction = read_in_turn
) -> Dataset:
    """A lazy dataset that describes listed files and yields metadata (schema `WRITTEN`) of the files written.

    Args:
        config: of the job; `num_gpus` decides between the two arrangements.
        listing: what to describe, schema `rows.LISTING`.
        gpu: the device that an actor with a GPU describes on.
        function: reads one file.
    """
    reading = Reading.of(config)._replace(function=function)
    write = partial(write_described, index=config.index)
    at_once, of_read = (ReadDescribeWrite, (config, reading)), (DescribeRead, (config.index, gpu))
    return through(Stages(reading, at_once, of_read, write, at_risk=config.commit_every), config, listing)


def through(stages: Stages, config: DescribingConfig, listing: pa.Table) -> Dataset:
    """A lazy dataset of what the last stage yields of listed files: on CPUs in one actor each, on GPUs one by one."""
    actors = config.actors or actor_count(config.num_gpus)
    unit = rows_per_file(len(listing), actors, config.batch_size, stages.at_risk, stages.rows_each)
    blocks = [listing.slice(start, unit) for start in range(0, len(listing), unit)]
    files = ray.data.from_arrow(blocks)
    pool = ActorPoolStrategy(size=actors)
    if not config.num_gpus:
        stage, arguments = stages.at_once
        return files.map_batches(
            stage, fn_constructor_args=arguments, compute=pool, batch_size=None, batch_format="pyarrow", num_cpus=1
        )
    read = files.map_batches(
        partial(read_batches, reading=stages.reading, size=config.batch_size),  # fewer at once where they are large
        batch_size=config.batch_size, batch_format="pyarrow", memory=READ_MEMORY,
    )  # fmt: skip
    stage, arguments = stages.of_read
    found = read.map_batches(
        stage, fn_constructor_args=arguments, compute=pool,
        batch_size=config.batch_size, batch_format="pyarrow", num_gpus=config.num_gpus,
    )  # fmt: skip
    return found.map_batches(stages.write, batch_size=unit * stages.rows_each, batch_format="pyarrow")


def rows_per_file(images: int, actors: int, batch_size: int, at_risk: int, rows_each: int = 1) -> int:
    """Images that an actor takes at once, and writes the rows of into one file.

    Of small archives few, so that the actors end together; of large ones `ROWS_PER_FILE`; never so many that all actors
    together hold more than `at_risk`, nor one of them more than `ROWS_HELD` rows, unless that is less than an image.
    """
    even = max(images // (8 * actors) // batch_size, 1) * batch_size
    return max(1, min(even, ROWS_PER_FILE, at_risk // actors, ROWS_HELD // rows_each))


def actor_count(num_gpus: float) -> int:
    """Describing actors that the cluster has room for: one per share of a GPU, or per CPU."""
    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) / num_gpus if num_gpus else resources.get("CPU", 1)))
