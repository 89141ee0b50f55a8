"""From listed files to what is made of their pixels, as Ray Data runs it: read, work on the pixels, write.

On CPUs one actor does all three with one thread, because a reading task would take the core away from an actor. On GPUs
reading is a pool of CPU tasks of its own, so that a GPU never waits for a decoder.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset

from rsir_core.imagery.reading import Reading, read_batches, reader_of

ROWS_PER_FILE: Final = 1024  # about 2.5 MB of embeddings; `compact` merges them later
ROWS_HELD: Final = 500_000  # that an actor gathers before it writes them, where an image has several: 110 MB of results
READ_MEMORY: Final = 2 * 1024**3  # bytes reserved per reading task, so that large images do not overfill a node


class PoolOptions(Protocol):
    """The options of a job that say where its actors run."""

    @property
    def actors(self) -> int:
        """Return the number of actors; 0: as many as the cluster has room for."""

    @property
    def num_gpus(self) -> float:
        """GPUs of each; 0: one CPU each."""

    @property
    def batch_size(self) -> int:
        """Images that are worked on at once."""


class Pool(NamedTuple):
    """`PoolOptions` of a job that has these under other names."""

    actors: int
    num_gpus: float
    batch_size: int


def as_they_are(worked: pa.Table) -> pa.Table:
    """Write nothing: the rows themselves are what is wanted."""
    return worked


@dataclass(frozen=True)
class Stage:
    """Describe what a listing goes through.

    Attributes:
        reading: how listed files are read.
        work: class of what is made of batches of read files (schema `reading.READ`, and columns of the listing's own).
        arguments: of that class, before the device that it works on.
        write: the rows that came of a block of files to what is yielded.
        rows_each: rows per image, at most, between the two.
        at_risk: images, at most, that actors may have in their hands together, so that a kill costs no more.
        gpu: the device of an actor with a GPU.
    """

    reading: Reading
    work: Callable[..., Callable[[pa.Table], pa.Table]]
    arguments: tuple[Any, ...]
    write: Callable[[pa.Table], pa.Table] = as_they_are
    rows_each: int = 1
    at_risk: int = sys.maxsize
    gpu: str = "cuda"


class ReadWorkWrite:
    """Ray Data's stage on CPUs: a block of listed files to what is written of them, in one actor.

    Args:
        stage: what they go through.
        batch_size: images that are worked on at once.
    """

    def __init__(self, stage: Stage, batch_size: int) -> None:
        self._stage, self._batch_size = stage, batch_size
        reader_of(stage.reading)  # it starts while the models are loaded
        self._work = stage.work(*stage.arguments, "cpu")

    def __call__(self, block: pa.Table) -> pa.Table:
        """Read and work batch by batch, so that pixels of one batch only are held; write once."""
        batches = read_batches(block, self._stage.reading, self._batch_size)
        return self._stage.write(pa.concat_tables([self._work(read) for read in batches], promote_options="default"))


def through(stage: Stage, options: PoolOptions, listing: pa.Table) -> Dataset:
    """Build a lazy dataset of what a stage yields of listed files: on CPUs in one actor each, on GPUs one by one.

    Args:
        stage: what they go through.
        options: of the job.
        listing: of the files; see `reading.read_files`.
    """
    actors = options.actors or actor_count(options.num_gpus)
    unit = rows_per_file(len(listing), actors, options.batch_size, stage.at_risk, stage.rows_each)
    blocks = [listing.slice(start, unit) for start in range(0, len(listing), unit)]
    files = ray.data.from_arrow(blocks)
    # No more actors than they can have work at once, which Ray Data would warn of; on GPUs they take smaller batches.
    work = math.ceil(len(listing) / options.batch_size) if options.num_gpus else len(blocks)
    pool = ActorPoolStrategy(size=max(1, min(actors, work)))
    if not options.num_gpus:
        return files.map_batches(
            ReadWorkWrite, fn_constructor_args=(stage, options.batch_size), compute=pool, batch_size=None,
            batch_format="pyarrow", num_cpus=1,
        )  # fmt: skip
    read = files.map_batches(
        partial(read_batches, reading=stage.reading, size=options.batch_size),  # fewer at once where they are large
        batch_size=options.batch_size, batch_format="pyarrow", memory=READ_MEMORY,
    )  # fmt: skip
    worked = read.map_batches(
        stage.work, fn_constructor_args=(*stage.arguments, stage.gpu), compute=pool,
        batch_size=options.batch_size, batch_format="pyarrow", num_gpus=options.num_gpus,
    )  # fmt: skip
    return worked.map_batches(stage.write, batch_size=unit * stage.rows_each, batch_format="pyarrow")


def rows_per_file(images: int, actors: int, batch_size: int, at_risk: int, rows_each: int = 1) -> int:
    """Compute how many images an actor takes at once and writes the rows of into one file.

    Of small archives few, so that the actors end together; of large ones `ROWS_PER_FILE`; never so many that all actors
    together hold more than `at_risk`, nor one of them more than `ROWS_HELD` rows, unless that is less than an image.
    """
    even = max(images // (8 * actors) // batch_size, 1) * batch_size
    return max(1, min(even, ROWS_PER_FILE, at_risk // actors, ROWS_HELD // rows_each))


def actor_count(num_gpus: float) -> int:
    """Count the describing actors that the cluster has room for: one per share of a GPU, or per CPU."""
    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) / num_gpus if num_gpus else resources.get("CPU", 1)))
