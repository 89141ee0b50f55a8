"""The stages from a listed query to its written results: read, describe, rank, write; on Ray or in this process.

The arrangement is that of `describing`; the rows of the index lie in the actors that describe.
"""

import io
import time
import uuid
from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.pipeline.stage import ReadWorkWrite, Stage, build_dataset, rows_per_file
from jobs.querying.options import QueryConfig
from rsir_core import schemas
from rsir_core.arrays import Mask
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.reading import Reading, images_of, pictures_of
from rsir_core.index.index import Index
from rsir_core.learning.archive_scores import read_scorer
from rsir_core.retrieval.describing import QueryDescriber
from rsir_core.retrieval.near_duplicates import kinds_of
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.query import Descriptor, Ranking, no_match_of
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.distance import most_probable
from rsir_core.storage.filesystem import put_file

if TYPE_CHECKING:
    from ray.data import Dataset

# A query that found nothing is one row without a rank; one that failed too, with its kind.
ANSWERED: Final = pa.schema([*schemas.RESULTS, *schemas.FAILURE, pa.field("began", pa.float64())])
WRITTEN: Final = pa.schema(
    [
        *((name, pa.int64()) for name in ("answered", "failed", "rows")),
        ("began", pa.float64()),  # unix seconds: when the first of its images was opened
        ("ended", pa.float64()),
    ]
)


class AnswerRead:
    """Stage: pixels in, results out (schema `reading.READ` to `ANSWERED`).

    Args:
        config: of the job.
        served: what is asked.
        threads: of torch; None: all cores.
        device: that describes.
    """

    def __init__(self, config: QueryConfig, served: ServedVersion, threads: int | None, device: str) -> None:
        import torch  # noqa: PLC0415 -- where queries are described

        if threads is not None:
            torch.set_num_threads(threads)
        self._describer = QueryDescriber(served, config.max_pixels, device)
        self._read = partial(pictures_of, reading=Reading.of(config))
        self._rows = PartitionSearch(served)
        self._ranking = Ranking.of(config, served)
        self._min_score = config.min_score
        self._scorer = None if config.collection is None else read_scorer(Index(served.index), config.collection)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer one batch."""
        good = batch.filter(batch["pixels"].is_valid())
        pictures = [Picture(pixels, None) for pixels in images_of(good)]
        described = self._describer.describe(pictures, [None] * len(pictures))
        queries = good.select([schemas.IMAGE_ID, schemas.URI, "began"]).to_pylist()
        found = [self._answer(*one) for one in zip(queries, pictures, described, strict=True)]
        bad = batch.filter(batch["pixels"].is_null())
        return pa.concat_tables([ANSWERED.empty_table(), *found, _failures(bad)])

    @cached_property
    def _allowed(self) -> Mask | None:
        """Find which images pass the filter; the same for all queries."""
        return self._rows.passing(self._ranking.filter)

    @cached_property
    def _likely(self) -> Mask | None:
        """Find which images score enough, if a collection is named; the same for all queries."""
        return None if self._scorer is None else self._rows.scores.of(self._scorer) >= self._min_score

    def _answer(self, asked: dict[str, Any], picture: Picture, descriptor: Descriptor) -> pa.Table:
        query = self._rows.as_indexed(descriptor) or descriptor
        ranked = self._rows.rank(query, self._ranking, self._allowed, self._likely)
        rows = ranked.rows
        name, probability = most_probable(query.class_probabilities, self._rows.served.classes)
        of_query = {
            schemas.IMAGE_ID: asked[schemas.IMAGE_ID],
            schemas.URI: asked[schemas.URI],
            schemas.CLASS: name,
            "probability": probability,
            schemas.REGION: query.region and query.region._asdict(),
        }
        length = max(len(rows), 1)
        columns: dict[str, Any] = {f"query_{name}": [value] * length for name, value in of_query.items()}
        columns["began"] = [asked["began"]] * length
        if len(rows):
            columns |= {name: rows[name] for name in rows.column_names}
            columns[schemas.RANK] = range(1, length + 1)
            columns[schemas.NO_MATCH] = [no_match_of(self._rows.served, self._ranking, ranked)] * length
            columns[schemas.RANKED_BY] = [ranked.ranked_by] * length
            columns[schemas.LEAST_WEIGHT] = [ranked.least_weight] * length
            if self._scorer is not None:
                columns[schemas.SCORE] = self._rows.scores_of(self._scorer, rows[schemas.IMAGE_ID].to_pylist())
            if self._ranking.near_duplicates:
                columns[schemas.SAME_PICTURE] = kinds_of(picture.pixels, rows[schemas.URI].to_pylist(), self._read)
        return _table(columns, length)


def write_answered(answered: pa.Table, out: str) -> pa.Table:
    """Write rows of schema `ANSWERED` below a folder; one row of metadata (schema `WRITTEN`)."""
    failed = answered.filter(answered[schemas.KIND].is_valid())
    results = answered.filter(answered[schemas.RANK].is_valid())
    if len(results):
        write_part(f"{out}/results", results.select(schemas.RESULTS.names))
    if len(failed):
        names = {f"query_{name}": name for name in (schemas.IMAGE_ID, schemas.URI)}
        failures = failed.select([*names, *(field.name for field in schemas.FAILURE)]).rename_columns(
            schemas.QUERY_FAILURES.names
        )
        write_part(f"{out}/failures", failures.cast(schemas.QUERY_FAILURES))
    first = pc.sum(pc.equal(pc.fill_null(answered[schemas.RANK], 1), 1)).as_py()  # one such row of each query
    counts = {"answered": first - len(failed), "failed": len(failed), "rows": len(results)}
    times = {"began": pc.min(answered["began"]).as_py(), "ended": time.time()}
    return pa.Table.from_pylist([counts | times], WRITTEN)


def write_part(folder: str, table: pa.Table) -> None:
    """Write a table as one more Parquet file of a folder."""
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    put_file(f"{folder}/part-{uuid.uuid4().hex}.parquet", data.getvalue())


def answer_files(
    config: QueryConfig, served: ServedVersion, listing: pa.Table, out: str, gpu: str = "cuda"
) -> "Dataset":
    """Build a lazy dataset that answers listed queries and yields metadata (schema `WRITTEN`) of what it wrote.

    Args:
        config: of the job; `num_gpus` decides between the two arrangements.
        served: what is asked.
        listing: of the queries, schema `schemas.LISTING`.
        out: the folder to write below.
        gpu: the device that an actor with a GPU describes on.
    """
    stage = Stage(Reading.of(config), AnswerRead, (config, served, 1), partial(write_answered, out=out), config.k,
                  gpu=gpu)  # fmt: skip
    return build_dataset(stage, config, listing)


def answer_here(config: QueryConfig, served: ServedVersion, listing: pa.Table, out: str) -> Iterator[dict[str, Any]]:
    """Do the same in this process, on all of its cores; yields rows of schema `WRITTEN`."""
    stage = Stage(Reading.of(config), AnswerRead, (config, served, None), partial(write_answered, out=out), config.k)
    answer = ReadWorkWrite(stage, config.batch_size)
    unit = rows_per_file(len(listing), 1, config.batch_size, stage.at_risk, config.k)
    for start in range(0, len(listing), unit):
        yield from answer(listing.slice(start, unit)).to_pylist()


def _failures(bad: pa.Table) -> pa.Table:
    columns = {f"query_{name}": bad[name] for name in (schemas.IMAGE_ID, schemas.URI)}
    columns |= {name: bad[name] for name in (schemas.STAGE, schemas.KIND, schemas.MESSAGE, "began")}
    return _table(columns, len(bad))


def _table(columns: dict[str, Any], n: int) -> pa.Table:
    return pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in ANSWERED], ANSWERED)
