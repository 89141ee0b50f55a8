"""Ask with a folder: each of its images is ranked against an index, into Parquet."""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa

from jobs.command import Summary
from jobs.meter import Meter
from jobs.pipeline.resources import is_on_cluster
from jobs.querying.answering import answer_files, answer_here, write_part
from jobs.querying.options import QueryConfig
from rsir_core import schemas
from rsir_core.archive.listing import list_images
from rsir_core.errors import ConfigError, QueryError, RsirError
from rsir_core.index.diff import listing_table
from rsir_core.index.index import Index
from rsir_core.learning.archive_scores import read_scorer
from rsir_core.retrieval.describing import no_backbone
from rsir_core.retrieval.partition import SCHEMA
from rsir_core.retrieval.served_version import ServedVersion, open_version
from rsir_core.search.filters import Filter
from rsir_core.storage.filesystem import file_system, reading_from

# Queries that one process answers before Ray and its actors would be ready: they take half a minute.
FEW: Final = 256

log = logging.getLogger("jobs.query")


class QueryProgress:
    """Track how many queries have been answered so far, and show it while its meter is entered."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.answered = self.failed = self.rows = 0
        self.meter = Meter(total, log)
        self._first, self._last = float("inf"), float("-inf")  # unix seconds by the workers' clocks

    def take(self, written: dict[str, Any]) -> None:
        """Note what one block came to, and say so."""
        self.answered += written["answered"]
        self.failed += written["failed"]
        self.rows += written["rows"]
        self._first, self._last = min(self._first, written["began"]), max(self._last, written["ended"])
        self.meter.mark(self.answered + self.failed)
        counts = f"{self.answered} of {self.total} answered, {self.failed} failed"
        self.meter.show(f"{counts}, {self.meter.rate or self.rate:.1f} queries/s, {self.meter.time_left}")

    @property
    def rate(self) -> float:
        """Queries per second from the first image opened to the last file written: without starting actors."""
        return (self.answered + self.failed) / (self._last - self._first) if self.answered + self.failed else 0.0


def answer_queries(config: QueryConfig) -> Summary:
    """Run the job once; the output folder appears when it is complete.

    Raises:
        ConfigError: a class or column that the index does not have, or a value that does not go with its column.
        RsirError: there is something in the folder already; no index; no image to ask with.
    """
    began = time.monotonic()
    fs, out = file_system(config.out.rstrip("/"))
    with reading_from(config.out):
        is_taken = fs.exists(out) and (not fs.isdir(out) or fs.ls(out))
    if is_taken:
        raise RsirError(f"--out {config.out} is not empty; remove it or name another, so that no answer is there twice")
    served = open_version(config.index)
    if not served.has_backbone:
        raise no_backbone(config.index)
    _check_filter(config, served)
    _check_scorer(config, served)
    listing = listing_table(list_images(config.queries))
    log.info("%d queries, %d images in version %d", len(listing), served.images, served.version)
    tally = QueryProgress(len(listing))
    unfinished = f"{config.out.rstrip('/')}.{uuid.uuid4().hex}.unfinished"
    try:
        with _answering(config, served, listing, unfinished) as answered, tally.meter:
            for written in answered:
                tally.take(written)
        for name, schema in (("results", schemas.RESULTS), ("failures", schemas.QUERY_FAILURES)):
            write_part(f"{unfinished}/{name}", schema.empty_table())  # so that both are there to be read
    except BaseException:
        _remove(fs, unfinished)
        raise
    _move(fs, unfinished, out)
    return {
        "queries": tally.total,
        "answered": tally.answered,
        "failed": tally.failed,
        "rows": tally.rows,
        "seconds": round(time.monotonic() - began, 1),
        "queries_per_second": round(tally.rate, 1),
        "version": served.version,
    }


def is_done_here(config: QueryConfig, queries: int) -> bool:
    """Tell whether this process answers by itself: few queries, on one machine, without GPUs."""
    return queries <= FEW and config.actors <= 1 and not config.num_gpus and not is_on_cluster(config.address)


@contextmanager
def _answering(
    config: QueryConfig, served: ServedVersion, listing: pa.Table, out: str
) -> Iterator[Iterator[dict[str, Any]]]:
    """Give what each block of queries came to, while they are answered in this process or on Ray."""
    if is_done_here(config, len(listing)):
        yield answer_here(config, served, listing, out)
        return
    from jobs.pipeline.cluster import joined  # noqa: PLC0415 -- brings Ray
    from jobs.pipeline.rows import rows_of  # noqa: PLC0415

    with joined(config.address, config.needs, config.verbose):
        yield rows_of(answer_files(config, served, listing, out))


def _check_filter(config: QueryConfig, served: ServedVersion) -> None:
    try:
        Filter.of(config).expression(SCHEMA, served.classes)
    except QueryError as error:
        raise ConfigError(f"--{error}") from error


def _check_scorer(config: QueryConfig, served: ServedVersion) -> None:
    """Refuse a collection from which nothing is learned, before anything is described."""
    if config.collection is None:
        if config.min_score:
            raise ConfigError("--min-score: name the collection whose scorer it is about by --collection")
        return
    scorer = read_scorer(Index(served.index), config.collection)
    if scorer is None or scorer.bundle != served.bundle:
        why = "nobody has learned from it yet" if scorer is None else "it was learned with another model"
        raise ConfigError(
            f"--collection {config.collection}: {why}; learn from it by POST /collections/NAME/learn, or from Python"
        )


def _move(fs: Any, unfinished: str, out: str) -> None:
    path = fs._strip_protocol(unfinished)
    try:
        if fs.exists(out):
            fs.rmdir(out)  # an empty one
        fs.mv(path, out, recursive=True)
    except Exception as error:  # each store has its own; they copy file by file: nothing that was answered is lost
        raise RsirError(f"the answers are complete in {unfinished} and could not be moved to {out}: {error}") from error


def _remove(fs: Any, unfinished: str) -> None:
    path = fs._strip_protocol(unfinished)
    if fs.exists(path):
        fs.rm(path, recursive=True)
