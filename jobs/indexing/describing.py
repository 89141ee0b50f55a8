"""The index job's part of the pipeline stage: describe images that were read, and write the rows as files."""

import json
import time
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from ray.data import Dataset

from jobs.indexing.options import IndexConfig
from jobs.indexing.progress import STAGES
from jobs.pipeline.stage import Stage, build_dataset
from rsir_core import schemas
from rsir_core.arrays import Mask, Pixels
from rsir_core.imagery.decode import read_in_turn
from rsir_core.imagery.reading import READ, Reading, images_of
from rsir_core.imagery.sandbox import ReadFunction
from rsir_core.index.index import Index
from rsir_core.index.layout import TableName
from rsir_core.index.object_rows import ObjectLists
from rsir_core.index.writer import write_rows
from rsir_core.models.describe import DescribedObjects, Describer, Descriptions

WRITTEN: Final = pa.schema(
    [
        ("table", pa.string()),
        ("name", pa.string()),
        ("size", pa.int64()),  # bytes
        ("row_count", pa.int64()),
        ("failures", pa.string()),  # JSON: uri, stage, kind and message of each row of `failures`
        ("began", pa.float64()),  # Unix seconds at which the first of its images was opened
        ("ended", pa.float64()),
        *((stage, pa.float64()) for stage in STAGES),  # seconds spent in each stage, summed over the rows
    ]
)
DESCRIBED: Final = pa.schema(
    [
        *(f.with_nullable(True) for f in schemas.EMBEDDINGS_WITH_OBJECTS),
        *schemas.FAILURE,
        pa.field("began", pa.float64()),
        pa.field("reading", pa.float64()),  # seconds
        pa.field("describing", pa.float64()),
    ]
)


class DescribeRead:
    """Ray Data stage: describe pixels (schema `READ` to `DESCRIBED`); failures pass through."""

    def __init__(self, index: str, device: str) -> None:
        torch.set_num_threads(1)
        self.describer = Describer(Index(index).bundle(), device)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Describe one batch."""
        good, began = batch.filter(batch["pixels"].is_valid()), time.time()
        found, lists = self._described(images_of(good))
        each = (time.time() - began) / max(len(good), 1)
        columns = {name: good[name] for name in READ.names if name in DESCRIBED.names}
        columns |= _columns_of(found) | {
            schemas.BUNDLE: pa.repeat(self.describer.bundle.fingerprint, len(good)),
            schemas.OBJECTS: pa.nulls(len(good), schemas.EMBEDDING_OBJECTS),
            "describing": pa.repeat(each, len(good)),
        }
        finite = _finite(found)
        if lists is not None:
            columns[schemas.OBJECTS] = _lists_of(lists)
            finite[np.repeat(np.arange(len(good)), lists.counts)[~_finite(lists.regions)]] = False
        described = pa.table([columns[name] for name in DESCRIBED.names], DESCRIBED)
        bad = batch.filter(batch["pixels"].is_null())
        if not finite.all():  # one such row would prevent publishing all others
            described = described.filter(pa.array(finite))
            bad = pa.concat_tables([bad, _not_finite(good.filter(pa.array(~finite)))])
        if len(bad) == 0:
            return described
        failures = {name: bad[name] if name in READ.names else pa.nulls(len(bad)) for name in DESCRIBED.names}
        failures[schemas.BUNDLE] = pa.repeat(self.describer.bundle.fingerprint, len(bad))
        return pa.concat_tables([described, pa.table(failures).cast(DESCRIBED)])

    def _described(self, images: list[Pixels]) -> tuple[Descriptions, DescribedObjects | None]:
        """Describe the key regions of images, and those of further objects where the bundle says so."""
        regions = self.describer.bundle.regions
        if regions == 1:
            return self.describer.describe(images), None
        return self.describer.describe_with_objects(images, regions - 1)


def _columns_of(found: Descriptions) -> dict[str, pa.Array]:
    """Convert descriptions of regions to columns."""
    boxes = [o and o.box._asdict() for o in found.objects]
    return {
        schemas.REGION: pa.array([r._asdict() for r in found.regions], DESCRIBED.field(schemas.REGION).type),
        schemas.OBJECT_CLASS: pa.array([o and o.name for o in found.objects], pa.string()),
        schemas.OBJECT_SCORE: pa.array([o and o.score for o in found.objects], pa.float32()),
        schemas.OBJECT_BOX: pa.array(boxes, DESCRIBED.field(schemas.OBJECT_BOX).type),
        schemas.CLASS_PROBABILITIES: schemas.to_vectors(found.class_probabilities),
        schemas.EMBEDDING: schemas.to_vectors(found.embedding),
    }


def _lists_of(found: DescribedObjects) -> pa.Array:
    """Convert the objects of images to a column of lists."""
    columns = _columns_of(found.regions)
    lists = ObjectLists(np.array(found.counts, np.int64), pa.StructArray.from_arrays(columns.values(), list(columns)))
    return lists.to_column(columns, schemas.EMBEDDING_OBJECTS)


def _finite(found: Descriptions) -> Mask:
    finite: Mask = np.isfinite(np.column_stack([found.embedding, found.class_probabilities])).all(axis=1)
    return finite


def _not_finite(read: pa.Table) -> pa.Table:
    """Convert rows of schema `READ` to failures because their embeddings are not finite."""
    words = [f"{uri} is described by numbers that are not finite" for uri in read[schemas.URI].to_pylist()]
    for name, values in ((schemas.STAGE, "describe"), (schemas.KIND, "error"), (schemas.MESSAGE, words)):
        column = pa.array(words, pa.string()) if values is words else pa.repeat(pa.scalar(values), len(read))
        read = read.set_column(read.schema.get_field_index(name), name, column)
    return read


def write_described(described: pa.Table, index: str) -> pa.Table:
    """Write rows of schema `DESCRIBED` as uncommitted files; returns a row of metadata (`WRITTEN`) per file."""
    failed = described[schemas.KIND].is_valid()
    parts: list[tuple[TableName, pa.Table]] = [
        ("embeddings", described.filter(described[schemas.KIND].is_null())),
        ("failures", described.filter(failed)),
    ]
    written = []
    for name, table in parts:
        if len(table):
            began = time.time()
            file = write_rows(index, name, table)
            ended = time.time()
            failures = table.select(schemas.FAILURE_COLUMNS).to_pylist() if name == "failures" else []
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


def describe_files(
    config: IndexConfig, listing: pa.Table, gpu: str = "cuda", function: ReadFunction = read_in_turn
) -> Dataset:
    """Build a lazy dataset that describes listed files and yields the metadata (schema `WRITTEN`) of files written.

    Args:
        config: the job's options; `num_gpus` decides how the stage is arranged, see `build_dataset`.
        listing: the files to describe, schema `schemas.LISTING`.
        gpu: device of actors with a GPU.
        function: reads one file.
    """
    reading = Reading.of(config)._replace(function=function)
    write = partial(write_described, index=Index(config.index).uri)
    stage = Stage(reading, DescribeRead, (config.index,), write, at_risk=config.commit_every, gpu=gpu)
    return build_dataset(stage, config, listing)
