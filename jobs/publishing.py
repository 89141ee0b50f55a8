"""From stored embeddings to published features: fit the PCA, project, commit. Images and models are not touched."""

import math
from collections.abc import Sequence

import pyarrow as pa
import ray
import ray.data
from ray.data.aggregate import AggregateFnV2
from ray.data.block import Block, BlockAccessor

from jobs.config import IndexConfig
from rsir_core import rows
from rsir_core.pca import Moments, Pca
from rsir_core.plan import Plan, anti, semi
from rsir_core.resident import in_runs
from rsir_core.table import FeatureFile, Index, WrittenFile

FEATURES_PER_FILE = 500_000  # about 70 MB; the larger, the fewer clusters a query looks at


class PcaMoments(AggregateFnV2[bytes, bytes]):
    """The moments of a dataset's embeddings, merged block by block; as bytes, which Arrow columns hold."""

    def __init__(self) -> None:
        super().__init__("moments", Moments.zero().to_bytes, on=None, ignore_nulls=False)

    def aggregate_block(self, block: Block) -> bytes:
        """Moments of one block."""
        table = BlockAccessor.for_block(block).to_arrow()
        return Moments.of(rows.to_matrix(table[rows.EMBEDDING])).to_bytes() if len(table) else Moments.zero().to_bytes()

    def combine(self, current_accumulator: bytes, new: bytes) -> bytes:
        """Moments of both."""
        return Moments.from_bytes(current_accumulator).merge(Moments.from_bytes(new)).to_bytes()


def wanted_rows(index: Index, wanted: pa.Table, columns: list[str]) -> ray.data.Dataset:
    """Stored embeddings whose keys are in `wanted`, once each."""
    keys = ray.put(wanted)
    stored: ray.data.Dataset = ray.data.read_delta(index.table_uri("embeddings"), columns=columns).map_batches(
        lambda batch: semi(batch, ray.get(keys)), batch_size=None, batch_format="pyarrow"
    )
    return stored


def fit_pca(index: Index, current: pa.Table, components: int) -> Pca:
    """Fit to the stored embeddings of all current rows, on the cluster."""
    dataset = wanted_rows(index, current, [rows.IMAGE_ID, rows.ETAG, rows.EMBEDDING])
    return Moments.from_bytes(dataset.aggregate(PcaMoments())["moments"]).fit(components)


def project(index: Index, wanted: pa.Table, pca: Pca, classes: Sequence[str]) -> list[WrittenFile]:
    """Write the features of stored embeddings; the files are not committed yet."""
    names, model = pa.array(classes, pa.string()), ray.put(pca)

    def to_features(batch: pa.Table) -> pa.Table:
        """Rows of `rows.EMBEDDINGS` to rows of `rows.FEATURES`."""
        projection: Pca = ray.get(model)
        best = rows.to_matrix(batch[rows.CLASS_PROBABILITIES]).argmax(axis=1) if len(batch) else []
        columns = {name: batch[name] for name in batch.column_names if name in rows.FEATURES.names}
        columns[rows.PCA] = pa.repeat(projection.fingerprint, len(batch))
        columns[rows.CLASS] = names.take(pa.array(best, pa.int64()))
        columns[rows.FEATURE] = (
            rows.to_vectors(projection.transform(rows.to_matrix(batch[rows.EMBEDDING])))
            if len(batch)
            else pa.array([], rows.VECTOR)
        )
        return pa.table([columns[name] for name in rows.FEATURES.names], rows.FEATURES)

    described = wanted_rows(index, wanted, rows.EMBEDDINGS.names)
    return _write(index, described.map_batches(to_features, batch_size=None, batch_format="pyarrow"), len(wanted))


def compact(index: Index) -> None:
    """Merge the small files of `features` in one atomic commit; nothing is done where there is one or none.

    No process holds more than a file's rows: Ray sorts them, on disk where memory does not suffice.
    """
    small = [file for file in index.feature_files() if file.row_count < FEATURES_PER_FILE // 2]
    if len(small) < 2:
        return
    uri = index.uri

    def read(files: pa.Table) -> pa.Table:
        """Rows of one file."""
        (file,) = files.to_pylist()
        return Index(uri).read_features(FeatureFile(**file))[0]

    files = ray.data.from_arrow([pa.Table.from_pylist([file._asdict()]) for file in small])
    merged = files.map_batches(read, batch_size=None, batch_format="pyarrow")
    index.commit("features", _write(index, merged, sum(file.row_count for file in small)), "append", small)


def _write(index: Index, features: ray.data.Dataset, row_count: int) -> list[WrittenFile]:
    """Rows of `rows.FEATURES` as large files; of several each has few classes: fewer are looked at for a query."""
    uri = index.uri

    def write(batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(
            [Index(uri).write_rows("features", *in_runs(batch))._asdict()] if len(batch) else []
        )

    files = math.ceil(row_count / FEATURES_PER_FILE)
    features = features.repartition(files)
    if files > 1:  # by id as well, since all rows of a key go to one file
        features = features.sort([rows.CLASS, rows.IMAGE_ID])
    written = features.map_batches(write, batch_size=None, batch_format="pyarrow")
    return [WrittenFile(**row) for row in written.iter_rows()]


def is_published(index: Index, plan: Plan, config: IndexConfig) -> bool:
    """Whether `features` is the listing's state already, so that no cluster is needed."""
    published = index.keys("features", [rows.PCA])
    if len(published) == 0 or config.refit_pca:
        return False
    current = semi(index.keys("embeddings"), plan.listing)
    same_size = len(index.pca(published[rows.PCA][0].as_py()).components) == config.components
    return same_size and len(anti(current, published)) == len(anti(published, current)) == 0


def publish(index: Index, plan: Plan, classes: Sequence[str], config: IndexConfig) -> None:
    """Bring `features` to the listing's state in one atomic commit; none if it is there already."""
    index.complete("embeddings")  # of which all columns are read
    current = semi(index.keys("embeddings"), plan.listing)
    published = index.keys("features", [rows.PCA])
    before = index.pca(published[rows.PCA][0].as_py()) if len(published) else None
    if before is None or config.refit_pca:
        pca = fit_pca(index, current, config.components)
    elif len(before.components) != config.components:
        pca = before.moments.fit(config.components)
    else:
        pca = before
    if before is None or pca.fingerprint != before.fingerprint:
        index.put_pca(pca)
        index.commit("features", project(index, current, pca, classes), "overwrite")
        return
    new, leaving = anti(current, published), anti(published, current, [rows.IMAGE_ID])
    files = project(index, new, pca, classes) if len(new) else []
    if len(leaving) or len(semi(new, published, [rows.IMAGE_ID])):
        index.replace_rows(files, pa.concat_tables([t.select([rows.IMAGE_ID]) for t in (leaving, new)])[rows.IMAGE_ID])
    elif files:
        index.commit("features", files, "append")
