"""The pipeline stage of all jobs on Ray Data: read listed files, work on their pixels, write the results.

On CPUs one actor with one thread does all three, because a separate reading task would take the core away from an
actor. With GPUs, reading is a separate pool of CPU tasks, so that a GPU never waits for a decoder.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import pyarrow as pa

from rsir_core.imagery.reading import Reading, read_batches, reader_of

if TYPE_CHECKING:
    from ray.data import Dataset

ROWS_PER_FILE: Final = 1024  # about 2.5 MB of embeddings; `compact` merges them later
MAX_ROWS: Final = 500_000  # that an actor gathers before writing, if an image has several rows: 110 MB of results
READ_MEMORY: Final = 2 * 1024**3  # bytes reserved per reading task, so that large images do not exhaust a node


class PoolOptions(Protocol):
    """Name the options of a job that decide where its actors run."""

    @property
    def actors(self) -> int:
        """Number of actors; 0: as many as the cluster has room for."""

    @property
    def num_gpus(self) -> float:
        """GPUs per actor; 0: one CPU each."""

    @property
    def batch_size(self) -> int:
        """Number of images processed at once."""


class Pool(NamedTuple):
    """Hold `PoolOptions` of a job whose own options have other names."""

    actors: int
    num_gpus: float
    batch_size: int


def unwritten(rows: pa.Table) -> pa.Table:
    """Return the rows themselves instead of writing them."""
    return rows


@dataclass(frozen=True)
class Stage:
    """Describe the work on a listing.

    Attributes:
        reading: how listed files are read.
        work: callable class that processes batches of read files (schema `reading.READ` and the listing's own columns).
        arguments: of its constructor, before the device.
        write: turns the resulting rows of a block of files into what is yielded.
        rows_each: most rows per image between `work` and `write`.
        at_risk: most images that all actors together may hold unwritten, which a kill loses.
        gpu: device of an actor with a GPU.
    """

    reading: Reading
    work: Callable[..., Callable[[pa.Table], pa.Table]]
    arguments: tuple[Any, ...]
    write: Callable[[pa.Table], pa.Table] = unwritten
    rows_each: int = 1
    at_risk: int = sys.maxsize
    gpu: str = "cuda"


class ReadWorkWrite:
    """Stage on CPUs, of an actor of Ray Data or of this process: read, process and write a block of listed files.

    Args:
        stage: the work.
        batch_size: number of images processed at once.
    """

    def __init__(self, stage: Stage, batch_size: int) -> None:
        self._stage, self._batch_size = stage, batch_size
        reader_of(stage.reading)  # its process starts while the models are loaded
        self._work = stage.work(*stage.arguments, "cpu")

    def __call__(self, block: pa.Table) -> pa.Table:
        """Read and process batch by batch, so that only one batch's pixels are held; write once."""
        batches = read_batches(block, self._stage.reading, self._batch_size)
        return self._stage.write(pa.concat_tables([self._work(read) for read in batches], promote_options="default"))


def build_dataset(stage: Stage, options: PoolOptions, listing: pa.Table) -> "Dataset":
    """Build the lazy dataset of a stage's results for listed files.

    Args:
        stage: the work.
        options: the job's options.
        listing: the files; see `reading.read_files`.
    """
    import ray.data  # noqa: PLC0415 -- stages also run without it, see `ReadWorkWrite`
    from ray.data import ActorPoolStrategy  # noqa: PLC0415

    actors = options.actors or actor_count(options.num_gpus)
    unit = rows_per_file(len(listing), actors, options.batch_size, stage.at_risk, stage.rows_each)
    share = unit  # of the listing, for one reading task or actor
    if options.num_gpus:  # every CPU reads, for few actors: of a small archive too
        share = min(unit, rows_per_file(len(listing), max(actors, actor_count(0)), options.batch_size, sys.maxsize))
    blocks = [listing.slice(start, share) for start in range(0, len(listing), share)]
    files = ray.data.from_arrow(blocks)
    # No more actors than there are blocks of work, which Ray Data would warn about; with GPUs a batch is a block.
    work = math.ceil(len(listing) / options.batch_size) if options.num_gpus else len(blocks)
    pool = ActorPoolStrategy(size=max(1, min(actors, work)))
    if not options.num_gpus:
        return files.map_batches(
            ReadWorkWrite, fn_constructor_args=(stage, options.batch_size), compute=pool, batch_size=None,
            batch_format="pyarrow", num_cpus=1,
        )  # fmt: skip
    read = files.map_batches(
        partial(read_batches, reading=stage.reading, size=options.batch_size),  # fewer at once if they are large
        batch_size=options.batch_size, batch_format="pyarrow", memory=READ_MEMORY,
    )  # fmt: skip
    worked = read.map_batches(
        stage.work, fn_constructor_args=(*stage.arguments, stage.gpu), compute=pool,
        batch_size=options.batch_size, batch_format="pyarrow", num_gpus=options.num_gpus,
    )  # fmt: skip
    return worked.map_batches(stage.write, batch_size=unit * stage.rows_each, batch_format="pyarrow")


def rows_per_file(images: int, actors: int, batch_size: int, at_risk: int, rows_each: int = 1) -> int:
    """Compute how many images an actor takes at once, whose rows it writes into one file.

    Few for small archives, so that all actors finish together, and `ROWS_PER_FILE` for large ones. Never so many that
    all actors together hold more than `at_risk` images, or one of them more than `MAX_ROWS` rows, but at least one
    image.
    """
    even = max(images // (8 * actors) // batch_size, 1) * batch_size
    return max(1, min(even, ROWS_PER_FILE, at_risk // actors, MAX_ROWS // rows_each))


def actor_count(num_gpus: float) -> int:
    """Count the actors that the cluster has room for: one per `num_gpus` of a GPU, or one per CPU."""
    import ray  # noqa: PLC0415 -- as above

    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) / num_gpus if num_gpus else resources.get("CPU", 1)))
