"""Measure the no-match threshold of a published version on the cluster, see `rsir_core.index.no_match`."""

import numpy as np
import pyarrow as pa
import ray

from rsir_core import schemas
from rsir_core.arrays import Ints
from rsir_core.index.delta import TableFile
from rsir_core.index.index import Index
from rsir_core.index.no_match import (
    QUERIES,
    NearestRows,
    NoMatchThreshold,
    Sample,
    get_no_match_threshold,
    has_no_match_threshold,
    nearest_rows,
    put_no_match_threshold,
)
from rsir_core.index.writer import IndexWriter

COLUMNS = [schemas.FEATURE, schemas.CLASS_PROBABILITIES, schemas.UNAVERAGED]


def measure_no_match_threshold(writer: IndexWriter, before: int = 0, changed: int | None = None) -> None:
    """Store the no-match threshold of the newest version; does nothing if it is stored, or for rows of several models.

    Measuring takes O(rows · QUERIES) time on the cluster, about 30 core-seconds per million rows. The threshold of an
    earlier version that differs in few rows is reused (see `NoMatchThreshold.after`).

    Args:
        writer: the index's writer.
        before: an earlier version; 0: there is none.
        changed: number of rows added or removed since; None: all, or unknown.
    """
    index = writer.index
    version = index.version()
    if has_no_match_threshold(index, version):
        return
    files = [file for file in index.feature_files(version) if file.row_count]
    models = index.models(version)
    if len(models) != 1:
        return
    ((bundle, pca),) = models
    if before and changed is not None and has_no_match_threshold(index, before):
        known = get_no_match_threshold(index, before, bundle, pca)
        if known is not None and (kept := known.after(changed)) is not None:
            put_no_match_threshold(writer, version, kept)
            return
    nearest_in, sample_of = ray.remote(_nearest_in), ray.remote(_sample_of)
    chosen = _choose([file.row_count for file in files])
    asked = [(f, positions) for f, positions in zip(files, chosen, strict=True) if len(positions)]
    samples: list[Sample] = ray.get([sample_of.remote(index.uri, f, positions) for f, positions in asked])
    sample = Sample(*(np.concatenate(column) for column in zip(*samples, strict=True)))
    shared = ray.put(sample)
    found = [nearest_in.remote(index.uri, f, shared) for f in files]
    nearest, rows = NearestRows.merge(ray.get(found)), sum(file.row_count for file in files)
    put_no_match_threshold(writer, version, NoMatchThreshold.of(bundle, pca, nearest, rows))


def _choose(counts: list[int]) -> list[Ints]:
    """Sample the rows that serve as queries: positions by file, at random but the same in every run."""
    n = sum(counts)
    positions = np.sort(np.random.default_rng(0).choice(n, min(QUERIES, n), replace=False))
    starts = np.cumsum([0, *counts[:-1]])
    split = np.split(positions, np.searchsorted(positions, starts[1:]))
    return [part - start for part, start in zip(split, starts, strict=True)]


def _sample_of(uri: str, file: TableFile, positions: Ints) -> Sample:
    return _vectors(Index(uri).read_columns(file, COLUMNS).take(pa.array(positions)))


def _nearest_in(uri: str, file: TableFile, sample: Sample) -> NearestRows:
    return nearest_rows(sample, *_vectors(Index(uri).read_columns(file, COLUMNS)))


def _vectors(table: pa.Table) -> Sample:
    """Take features before they were averaged: averaging draws an unrelated query towards the rows."""
    p = schemas.to_matrix(table[schemas.CLASS_PROBABILITIES])
    return Sample(schemas.unaveraged_features(table), p)
