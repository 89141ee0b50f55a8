"""An index as a run would have left it, of images that nobody described: embeddings are drawn, the rest is real."""

import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from jobs.indexing.publishing import FEATURES_PER_FILE
from rsir_core import schemas
from rsir_core.index.index import Index
from rsir_core.index.writer import write_rows
from rsir_core.models.pca import Moments
from rsir_core.retrieval.partition import in_runs
from tests.support.writing import writer_of

DIMENSIONS = 1280
BLOCK = 8192  # rows that are drawn once and then used again and again: memory and time do not depend on values


def drawn_embeddings(classes: int, rng: np.random.Generator) -> tuple[pa.Array, pa.Array]:
    """`BLOCK` embeddings, non-negative like pooled activations after a ReLU, and their class probabilities."""
    centres = rng.gamma(0.4, 1.0, (classes, DIMENSIONS)).astype(np.float32)
    label = rng.integers(classes, size=BLOCK)
    embedding = (centres[label] + rng.standard_gamma(0.6, (BLOCK, DIMENSIONS), np.float32) / 2).astype(np.float16)
    odds = np.exp(4 * (np.eye(classes)[label] + 0.3 * rng.standard_normal((BLOCK, classes))))
    return schemas.to_vectors(embedding), schemas.to_vectors(odds / odds.sum(axis=1, keepdims=True))


def embedding_blocks(listing: pa.Table, bundle: str, classes: int) -> Iterator[pa.Table]:
    """Rows of `schemas.EMBEDDINGS` for listed images, at most `BLOCK` at a time."""
    embedding, probabilities = drawn_embeddings(classes, np.random.default_rng(0))
    region = pa.scalar({"x": 13, "y": 13, "width": 230, "height": 230}, schemas.EMBEDDINGS.field(schemas.REGION).type)
    for start in range(0, len(listing), BLOCK):
        part = listing.slice(start, BLOCK)
        n = len(part)
        columns = {
            **{name: part[name] for name in (schemas.IMAGE_ID, schemas.URI, schemas.ETAG)},
            schemas.BUNDLE: pa.repeat(bundle, n),
            schemas.HEIGHT: pa.repeat(pa.scalar(256, pa.int32()), n),
            schemas.WIDTH: pa.repeat(pa.scalar(256, pa.int32()), n),
            schemas.REGION: pa.repeat(region, n),
            schemas.CLASS_PROBABILITIES: probabilities.slice(0, n),
            schemas.EMBEDDING: embedding.slice(0, n),
        }
        schema = schemas.EMBEDDINGS
        yield pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in schema], schema)


def store_embeddings(index: Index, listing: pa.Table, bundle: str, classes: int, rows_per_file: int) -> None:
    """Write and commit them in files of so many rows."""
    files = []
    for block in embedding_blocks(listing, bundle, classes):
        starts = range(0, len(block), rows_per_file)
        files += [write_rows(index.uri, "embeddings", block.slice(start, rows_per_file)) for start in starts]
    writer_of(index).commit("embeddings", files, "append")


def publish_features(index: Index, listing: pa.Table, bundle: str, names: tuple[str, ...], components: int) -> None:
    """Fit a PCA to the first block and publish the features of all rows, as the job would."""
    blocks, rng = embedding_blocks(listing, bundle, len(names)), np.random.default_rng(0)
    pca, parts = None, []
    for block in blocks:
        embedding = schemas.to_matrix(block[schemas.EMBEDDING])
        pca = pca or Moments.of(embedding).fit(components)
        best = schemas.to_matrix(block[schemas.CLASS_PROBABILITIES]).argmax(axis=1)
        feature = pca.transform(embedding)
        feature += 0.01 * rng.standard_normal(feature.shape, np.float32)  # or equal blocks would compress to nothing
        more = {
            schemas.PCA: pa.repeat(pca.fingerprint, len(block)),
            schemas.CLASS: pa.array(names).take(pa.array(best)),
            schemas.FEATURE: schemas.to_vectors(feature),
            schemas.UNAVERAGED: pa.nulls(len(block), schemas.VECTOR),
        }
        parts.append(pa.table([more[n] if n in more else block[n] for n in schemas.FEATURES.names], schemas.FEATURES))
    if pca is not None:
        writer_of(index).put_pca(pca)
        table = pa.concat_tables(parts).sort_by([(name, "ascending") for name in (schemas.CLASS, schemas.IMAGE_ID)])
        size = math.ceil(len(table) / math.ceil(len(table) / FEATURES_PER_FILE))
        shares = [table.slice(start, size) for start in range(0, len(table), size)]
        writer_of(index).commit(
            "features", [write_rows(index.uri, "features", *in_runs(share)) for share in shares], "append"
        )
