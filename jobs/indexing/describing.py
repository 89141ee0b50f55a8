"""The stages from a listed file to a written row, as Ray Data runs them: read, describe, write.

On CPUs one actor does all three with one thread, because a reading task would take the core away from an actor. On GPUs
reading is a pool of CPU tasks of its own, so that a GPU never waits for a decoder.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, Dataset

from jobs.config import DescribingConfig, IndexConfig
from jobs.indexing.progress import STAGES
from rsir_core import rows
from rsir_core.describe import Describer
from rsir_core.errors import ImageError
from rsir_core.footprint import time_in
from rsir_core.raster import Picture, read_in_turn
from rsir_core.reader import Reader, ReadFunction, memory_for
from rsir_core.table import Index, TableName

ROWS_PER_FILE: Final = 1024  # about 2.5 MB of embeddings; `compact` merges them later
ROWS_HELD: Final = 500_000  # that an actor gathers before it writes them, where an image has several: 110 MB of results
AT_ONCE: Final = 4  # images that are read for a batch before their size is known
HELD: Final = 256 * 1024**2  # bytes of pixels from which a batch is described, however few images they are
READ_MEMORY: Final = 2 * 1024**3  # bytes reserved per reading task, so that large images do not overfill a node

_FAILURE: Final = [pa.field(name, pa.string()) for name in (rows.STAGE, rows.KIND, rows.MESSAGE)]
_KEY: Final = [rows.LISTING.field(name) for name in (rows.IMAGE_ID, rows.URI, rows.ETAG)]
_READ_OF: Final = (rows.IMAGE_ID, rows.URI, rows.ETAG, rows.TIME)
READ: Final = pa.schema(
    [
        *_KEY,
        pa.field(rows.HEIGHT, pa.int32()),
        pa.field(rows.WIDTH, pa.int32()),
        *(rows.EMBEDDINGS.field(name) for name in (rows.NOTES, rows.TIME, rows.BBOX)),
        *rows.SCENE_COLUMNS,
        pa.field("began", pa.float64()),  # unix seconds: when it was opened
        pa.field("reading", pa.float64()),  # seconds
        pa.field("pixels", pa.large_binary()),  # height × width × 3, uint8 RGB; null: a failure
        *_FAILURE,
    ]
)
WRITTEN: Final = pa.schema(
    [
        ("table", pa.string()),
        ("name", pa.string()),
        ("size", pa.int64()),  # bytes
        ("row_count", pa.int64()),
        ("reasons", pa.string()),  # of failures: JSON, count by kind
        ("examples", pa.string()),  # of failures: JSON, one message by kind
        ("began", pa.float64()),  # unix seconds: when the first of its images was opened
        ("ended", pa.float64()),
        *((stage, pa.float64()) for stage in STAGES),  # seconds spent in it, over all rows
    ]
)
DESCRIBED: Final = pa.schema(
    [
        *(f.with_nullable(True) for f in rows.EMBEDDINGS),
        *_FAILURE,
        pa.field("began", pa.float64()),
        pa.field("reading", pa.float64()),  # seconds
        pa.field("describing", pa.float64()),
    ]
)


class Reading(NamedTuple):
    """How files are read: by which function, of up to how many pixels, in up to how many seconds each."""

    max_pixels: int
    seconds: float
    function: ReadFunction = read_in_turn

    @classmethod
    def of(cls, config: DescribingConfig) -> "Reading":
        """As a job was told."""
        return cls(config.max_pixels, config.image_seconds)


@cache
def reader_of(reading: Reading) -> Reader[Picture]:
    """One for each process of Ray's, whatever tasks and actors run there."""
    return Reader(reading.function, reading.seconds, memory_for(reading.max_pixels))


def read_files(listing: pa.Table, reading: Reading) -> pa.Table:
    """Read and decode listed files (schema `rows.LISTING`); one row each, of schema `READ`."""
    table = []
    began = time.time()
    pictures = reader_of(reading).read([(uri, reading.max_pixels) for uri in listing[rows.URI].to_pylist()])
    each = (time.time() - began) / max(1, len(listing))
    keys = zip(*(listing[name].to_pylist() for name in _READ_OF), strict=True)
    for (image_id, uri, etag, listed), picture in zip(keys, pictures, strict=True):
        row: dict[str, Any] = {rows.IMAGE_ID: image_id, rows.URI: uri, rows.ETAG: etag}
        row |= {"began": began, "reading": each}
        if isinstance(picture, ImageError):
            row |= {rows.STAGE: picture.stage, rows.KIND: picture.kind, rows.MESSAGE: str(picture)}
        else:
            row |= _columns_of(picture)
            row[rows.TIME] = listed or picture.time or time_in(uri)
        table.append(row)
    columns = {name: [row.get(name) for row in table] for name in READ.names}
    return pa.table(columns, READ)


def read_batches(listing: pa.Table, reading: Reading, size: int) -> Iterator[pa.Table]:
    """Listed files read in batches of so many, or of fewer where they are large: schema `READ`, in their order."""
    start, held = 0, READ.empty_table()
    while start < len(listing):
        read = read_files(listing.slice(start, min(AT_ONCE, size - len(held))), reading)
        start, held = start + len(read), pa.concat_tables([held, read])
        if len(held) == size or held["pixels"].nbytes >= HELD or start == len(listing):
            yield held
            held = READ.empty_table()


def _columns_of(picture: Picture) -> dict[str, Any]:
    height, width = picture.pixels.shape[:2]
    # A copy, which costs 0.02 ms: pyarrow (26.0) never lets go of a memoryview that it has made a value of.
    pixels = picture.pixels.tobytes()
    columns = {rows.HEIGHT: height, rows.WIDTH: width, rows.NOTES: picture.notes, "pixels": pixels}
    if picture.window is not None:
        columns[rows.WINDOW] = dict(zip(("x", "y", "width", "height"), picture.window.flatten(), strict=True))
    if picture.ground is not None:
        columns[rows.BBOX] = dict(zip(rows.BBOX_FIELDS, picture.ground.bbox, strict=True))
        columns |= {rows.GEOMETRY: picture.ground.polygon, rows.CRS: picture.ground.crs}
    return columns


def images_of(read: pa.Table) -> list[npt.NDArray[np.uint8]]:
    """The images H×W×3 of rows of schema `READ` that are no failures."""
    return [
        np.frombuffer(pixels.as_buffer(), np.uint8).reshape(height.as_py(), width.as_py(), 3)
        for pixels, height, width in zip(read["pixels"], read[rows.HEIGHT], read[rows.WIDTH], strict=True)
    ]


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
            failed_as = list(zip(table[rows.KIND].to_pylist(), table[rows.MESSAGE].to_pylist(), strict=True))
            written.append(
                {
                    "table": name,
                    **file._asdict(),
                    "reasons": json.dumps(Counter(kind for kind, _ in failed_as if kind)),
                    "examples": json.dumps({kind: message for kind, message in failed_as if kind}),
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
        partial(read_files, reading=stages.reading),
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
