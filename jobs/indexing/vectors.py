"""Embeddings that somebody else made, in place of describing images: listed, then written as rows of `embeddings`."""

import json
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from jobs.indexing.options import IndexConfig
from rsir_core import schemas
from rsir_core.archive.vectors import (
    Listed,
    RowGroup,
    VectorArchive,
    explain_vector,
    list_vectors,
    open_vectors,
    read_pieces,
)
from rsir_core.geo.geometries import bounds_of, to_degrees
from rsir_core.index.index import Index

if TYPE_CHECKING:
    from ray.data import Dataset

    from rsir_core.models.head import Head

ROWS_PER_FILE: Final = 16_384  # 64 MB of 1,024 numbers
UNKNOWN: Final = {"x": 0, "y": 0, "width": 0, "height": 0}  # key region of an image that is not read
GROUP: Final = "group"  # column: row group, as JSON

log = logging.getLogger("jobs.index")


class VectorSource(NamedTuple):
    """Hold an archive of embeddings and its rows."""

    archive: VectorArchive
    listed: Listed


def open_archive(config: IndexConfig) -> VectorArchive | None:
    """Open the archive of embeddings that the options name, and say which columns it is read by; None: of images."""
    if config.vectors is None:
        return None
    archive = open_vectors(config.archive, config.vectors, config.named_columns)
    log.info("%d row groups of vectors of %d numbers; %s", len(archive.groups), archive.dimensions, archive.columns)
    return archive


def list_source(archive: VectorArchive | None) -> VectorSource | None:
    """List an archive of embeddings."""
    return None if archive is None else VectorSource(archive, list_vectors(archive))


def take_vectors(source: VectorSource, config: IndexConfig, wanted: pa.Table) -> "Dataset":
    """Build a lazy dataset that writes vectors as rows of `embeddings` or `failures` and yields schema `WRITTEN`.

    Each task reads one row group, a piece at a time.

    Args:
        source: the archive.
        config: the job's options.
        wanted: rows of its listing to write.
    """
    import ray.data  # noqa: PLC0415 -- as `describing`, for runs that have something to do

    from rsir_core.models.head import Head  # noqa: PLC0415 -- brings scipy

    index = Index(config.index)
    bundle = index.bundle()
    head = ray.put(Head.of(bundle.classifier, bundle.classifier_state))
    archive, uri, fingerprint, most = (
        source.archive._replace(groups=[]),
        index.uri,
        bundle.fingerprint,
        config.commit_every,
    )
    crs = archive.columns.crs

    def take(part: pa.Table) -> pa.Table:
        """Write the wanted rows of one row group."""
        group, layer = RowGroup(*json.loads(part[GROUP][0].as_py())), ray.get(head)
        found = (
            _described(rows, archive.dimensions, layer, fingerprint, crs) for rows in _wanted(archive, group, part)
        )
        return _written(found, uri, min(ROWS_PER_FILE, most))

    parts: Dataset = ray.data.from_arrow(_parts(source, wanted)).map_batches(
        take, batch_size=None, batch_format="pyarrow"
    )
    return parts


def _parts(source: VectorSource, wanted: pa.Table) -> list[pa.Table]:
    """Split wanted rows by their row groups; columns `image_id`, `etag` and `group`."""
    listed = source.listed.listing[schemas.IMAGE_ID]
    of_row = source.listed.group
    if len(wanted) < len(listed):
        of_row = of_row[pc.index_in(wanted[schemas.IMAGE_ID], listed.combine_chunks()).to_numpy()]
    order = np.argsort(of_row, kind="stable")
    places, starts = np.unique(of_row[order], return_index=True)
    keys = wanted.select([schemas.IMAGE_ID, schemas.ETAG])
    parts = []
    for place, rows in zip(places.tolist(), np.split(order, starts[1:]), strict=True):
        name = json.dumps(source.archive.groups[place])
        part = keys.take(pa.array(np.sort(rows)))
        parts.append(part.append_column(GROUP, pa.repeat(name, len(part)).dictionary_encode()))
    return parts


def _wanted(archive: VectorArchive, group: RowGroup, part: pa.Table) -> Iterator[pa.Table]:
    """Read the wanted rows of a row group, with the etags that they were listed with."""
    etags = part.select([schemas.IMAGE_ID, schemas.ETAG])
    for piece in read_pieces(archive, group):
        places = pc.index_in(piece[schemas.IMAGE_ID], etags[schemas.IMAGE_ID].combine_chunks())
        rows = piece.filter(places.is_valid())
        if len(rows):
            now = etags[schemas.ETAG].take(places.drop_null())
            yield rows.set_column(rows.schema.get_field_index(schemas.ETAG), schemas.ETAG, now)


def _described(rows: pa.Table, dimensions: int, head: "Head", bundle: str, crs: str | None) -> pa.Table:
    """Convert a piece (schema `vectors.PIECES`) to rows of schema `describing.DESCRIBED`; bad ones become failures."""
    from jobs.indexing.describing import DESCRIBED  # noqa: PLC0415 -- brings Ray

    began, n = time.time(), len(rows)
    vectors = [None if v is None else np.asarray(v) for v in _arrays(rows[schemas.EMBEDDING])]
    why = [explain_vector(vector, dimensions) for vector in vectors]
    good = np.array([reason is None for reason in why])
    filled = np.zeros((n, dimensions), np.float32)
    for i in np.flatnonzero(good):
        filled[i] = vectors[i]
    p = head.probabilities(filled)
    for i in np.flatnonzero(good & ~np.isfinite(p).all(axis=1)):
        good[i], why[i] = False, ("corrupt", "its vector has numbers that are too large for the classifier")
    failed = pa.array(~good)
    words = [reason and f"{uri}: {reason[1]}" for reason, uri in zip(why, rows[schemas.URI].to_pylist(), strict=True)]
    columns: dict[str, Any] = {
        **{name: rows[name] for name in (schemas.IMAGE_ID, schemas.URI, schemas.ETAG, schemas.TIME)},
        **_footprints(rows[schemas.GEOMETRY], crs),
        schemas.BUNDLE: pa.repeat(bundle, n),
        **{name: pa.repeat(pa.scalar(0, pa.int32()), n) for name in (schemas.HEIGHT, schemas.WIDTH)},
        schemas.REGION: pa.repeat(pa.scalar(UNKNOWN, schemas.PIXELS), n),
        schemas.CLASS_PROBABILITIES: schemas.to_vectors(p),
        schemas.EMBEDDING: schemas.to_vectors(filled),
        schemas.STAGE: pc.if_else(failed, "describe", None),
        schemas.KIND: pa.array([reason and reason[0] for reason in why], pa.string()),
        schemas.MESSAGE: pa.array(words, pa.string()),
        "began": pa.repeat(began, n),
        "describing": pa.repeat((time.time() - began) / n, n),
    }
    return pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in DESCRIBED], DESCRIBED)


def _arrays(column: pa.ChunkedArray) -> Iterator[Any]:
    """Yield each list's values as an array of its own, without copying; None: it is null."""
    for chunk in column.chunks:
        values, ends, valid = chunk.values, chunk.offsets.to_pylist(), chunk.is_valid().to_pylist()
        numbers = values.to_numpy(zero_copy_only=False)  # null within becomes NaN
        for i, is_there in enumerate(valid):
            yield numbers[ends[i] : ends[i + 1]] if is_there else None


def _footprints(outlines: pa.ChunkedArray, crs: str | None) -> dict[str, pa.Array]:
    """Convert geometries to the columns of footprints; all null where one cannot be read or is not on earth."""
    n = len(outlines)
    if outlines.null_count == n:
        return {}
    wkb = np.empty(n, np.object_)
    wkb[:] = outlines.to_pylist()
    geometries = shapely.force_2d(to_degrees(shapely.from_wkb(wkb, on_invalid="ignore"), crs))
    bounds = bounds_of(geometries)
    geometries[np.array([box is None for box in bounds])] = None
    boxes = [box and dict(zip(schemas.BBOX_FIELDS, box, strict=True)) for box in bounds]
    codes = [box and (crs or "EPSG:4326") for box in bounds]
    return {
        schemas.BBOX: pa.array(boxes, schemas.EMBEDDINGS.field(schemas.BBOX).type),
        schemas.GEOMETRY: pa.array(shapely.to_wkb(geometries).tolist(), pa.binary()),
        schemas.CRS: pa.array(codes, pa.string()),
    }


def _written(described: Iterator[pa.Table], index: str, most: int) -> pa.Table:
    """Write rows of schema `DESCRIBED` in files of at most so many, or one piece; rows of schema `WRITTEN`."""
    from jobs.indexing.describing import WRITTEN, write_described  # noqa: PLC0415 -- as above

    held: list[pa.Table] = []
    written = [WRITTEN.empty_table()]
    for piece in described:
        if held and sum(map(len, held)) + len(piece) > most:
            written.append(write_described(pa.concat_tables(held), index))
            held = []
        held.append(piece)
    if held:
        written.append(write_described(pa.concat_tables(held), index))
    return pa.concat_tables(written)
