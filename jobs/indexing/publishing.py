"""From stored embeddings to published features: fit the PCA, project, commit. Images and models are not touched."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from jobs.indexing.averaging import averaged_features
from jobs.indexing.options import IndexConfig
from jobs.indexing.published import archive_root, has_moved
from jobs.indexing.replacing import Replacing
from jobs.pipeline.rows import rows_of
from rsir_core import schemas
from rsir_core.archive.listing import Root, rebase_uri
from rsir_core.arrays import Doubles, Floats
from rsir_core.errors import TableError
from rsir_core.index.delta import WrittenFile
from rsir_core.index.diff import Plan, anti, semi
from rsir_core.index.drift import ERROR, Drift, FeatureStatistics, total
from rsir_core.index.embedding_files import by_file, stored_keys, stored_rows
from rsir_core.index.index import Index
from rsir_core.index.object_rows import ObjectLists, has_objects
from rsir_core.index.writer import IndexWriter, write_rows
from rsir_core.models.pca import Moments, Pca, choose_components
from rsir_core.retrieval.partition import in_runs
from rsir_core.search.distance import NO_CLASS
from rsir_core.search.distance import classes as most_probable_classes

FEATURES_PER_FILE = 500_000  # about 70 MB; larger files mean fewer clusters per query
START = "start"  # column: rows of the parts before
ROWS_PER_PART = 65_536  # read by one task, file by file


class Projected(NamedTuple):
    """Hold written files of `features` that are not committed yet, and statistics of their rows."""

    files: list[WrittenFile]
    statistics: FeatureStatistics


def parts_of(keys: pa.Table) -> ray.data.Dataset:
    """Distribute keys and files of stored embeddings (see `stored_keys`) over blocks, each to be read by one task."""
    parts: ray.data.Dataset = ray.data.from_arrow(by_file(keys, ROWS_PER_PART))
    return parts


def fit_pca(index: Index, current: pa.Table, components: int | None, classes: int = 0) -> Pca:
    """Fit a PCA, on the cluster, to the stored embeddings of all current rows (a table as `stored_keys` returns).

    Where the number of components is None it is chosen for the number of classes. Embeddings of further objects count
    as the key regions do: fitted to these alone it loses what tells objects apart.
    """

    def moments_of(part: pa.Table) -> pa.Table:
        """Compute the moments of one part, encoded as bytes for an Arrow column."""
        total = Moments.zero()
        for piece in stored_rows(Index(uri), part, [schemas.EMBEDDING, schemas.OBJECTS]):
            total = total.merge(Moments.of(schemas.to_matrix(piece[schemas.EMBEDDING])))
            if has_objects(piece):
                of_objects = ObjectLists.of(piece[schemas.OBJECTS]).column(schemas.EMBEDDING)
                total = total.merge(Moments.of(schemas.to_matrix(of_objects)) if len(of_objects) else Moments.zero())
        return pa.table({"moments": pa.array([total.to_bytes()], pa.large_binary())})

    uri, total = index.uri, Moments.zero()
    if len(current):
        found = parts_of(current).map_batches(moments_of, batch_size=None, batch_format="pyarrow")
        found.context.execution_options.preserve_order = True  # sums in another order differ in their last bits
        for row in rows_of(found):
            total = total.merge(Moments.from_bytes(row["moments"]))
    return total.fit(components or choose_components(classes, total.count, len(total.mean)))


def project(
    index: Index,
    wanted: pa.Table,
    pca: Pca,
    classes: Sequence[str],
    root: Root | None = None,
    counted: pa.Table | None = None,
) -> Projected:
    """Project stored embeddings to features and write these as files, which are not committed yet.

    Args:
        index: the index.
        wanted: keys and files of the rows, as `stored_keys` returns.
        pca: the projection.
        classes: class names, in the order of the probabilities.
        root: where the archive lies now, if it may have moved since the images were described; None: URIs as stored.
        counted: keys of the rows whose statistics are wanted; None: of all.
    """
    if len(wanted) == 0:
        return Projected([], FeatureStatistics())
    names, model, uri = pa.array(classes or [NO_CLASS], pa.string()), ray.put(pca), index.uri
    parts = by_file(wanted, ROWS_PER_PART)
    averages = ray.put(averaged_features(index, parts, pca) if pca.neighbours else None)
    ids = None if counted is None else ray.put(counted[schemas.IMAGE_ID].combine_chunks())

    def to_features(part: pa.Table) -> pa.Table:
        """Turn keys into rows of `schemas.FEATURES`, each with its reconstruction error."""
        projection, averaged, start = ray.get(model), ray.get(averages), part[START][0].as_py()
        found = []
        for piece in stored_rows(Index(uri), part, schemas.EMBEDDINGS_WITH_OBJECTS.names):
            mine = None if averaged is None else averaged[start : (start := start + len(piece))]
            found.append(as_features(_under(root, piece), projection, names, mine))
        return pa.concat_tables(found)

    starts = np.cumsum([0, *map(len, parts)]).tolist()
    parts = [part.append_column(START, pa.repeat(start, len(part))) for part, start in zip(parts, starts, strict=False)]
    if len(wanted) <= min(ROWS_PER_PART, FEATURES_PER_FILE):  # a dataset takes seconds even for few rows
        task: Any = ray.remote(lambda keys: _write(uri, to_features(keys), ids))
        return _gathered([ray.get(task.remote(parts[0]))])
    features = ray.data.from_arrow(parts).map_batches(to_features, batch_size=None, batch_format="pyarrow")
    return write_features(index, features, len(wanted), ids)


def _under(root: Root | None, described: pa.Table) -> pa.Table:
    """Replace the stored URIs by those below the archive's current root."""
    if root is None:
        return described
    names = (described[name].to_pylist() for name in (schemas.URI, schemas.IMAGE_ID))
    now = [rebase_uri(root, uri, image_id) for uri, image_id in zip(*names, strict=True)]
    return described.set_column(described.column_names.index(schemas.URI), schemas.URI, pa.array(now, pa.string()))


def as_features(described: pa.Table, pca: Pca, names: pa.Array, averaged: Floats | None = None) -> pa.Table:
    """Project rows of `EMBEDDINGS` to rows of `FEATURES` with `drift.ERROR`.

    Args:
        described: the rows.
        pca: the projection.
        names: of the classes.
        averaged: the rows' averaged features; None: they are not averaged.
    """
    embedding = schemas.to_matrix(described[schemas.EMBEDDING])
    feature = pca.transform(embedding)
    columns = {name: described[name] for name in described.column_names if name in schemas.FEATURES.names}
    columns[schemas.PCA] = pa.repeat(pca.fingerprint, len(described))
    columns[schemas.CLASS] = _most_probable(described[schemas.CLASS_PROBABILITIES], names)
    columns[schemas.FEATURE] = schemas.to_vectors(feature if averaged is None else averaged)
    nothing = pa.nulls(len(described), schemas.VECTOR)
    columns[schemas.UNAVERAGED] = nothing if averaged is None else schemas.to_vectors(feature)
    schema, errors = schemas.FEATURES, pca.errors(embedding, feature)
    if has_objects(described):
        schema, lists = schemas.FEATURES_WITH_OBJECTS, ObjectLists.of(described[schemas.OBJECTS])
        columns[schemas.OBJECTS], further = _featured_objects(lists, pca, names)
        np.add.at(errors, lists.image, further)
        errors /= lists.counts + 1  # the mean over an image's regions, as the PCA was fitted to all
    table = pa.table([columns[name] for name in schema.names], schema)
    return table.append_column(ERROR, pa.array(errors))


def _featured_objects(lists: ObjectLists, pca: Pca, names: pa.Array) -> tuple[pa.Array, Doubles]:
    """Project objects as rows are: the column of their lists (n,), and the reconstruction error of each object (m,)."""
    fields = {f.name: lists.column(f.name) for f in schemas.EMBEDDING_OBJECTS.value_type}
    embedding = schemas.to_matrix(fields[schemas.EMBEDDING]).reshape(len(lists.objects), pca.components.shape[1])
    feature = pca.transform(embedding)
    fields[schemas.CLASS] = _most_probable(fields[schemas.CLASS_PROBABILITIES], names)
    fields[schemas.FEATURE] = schemas.to_vectors(feature)
    fields[schemas.PLACE] = pa.nulls(len(lists.objects), pa.int32())  # until the file is written
    return lists.to_column(fields, schemas.FEATURE_OBJECTS), pca.errors(embedding, feature)


def _most_probable(probabilities: pa.ChunkedArray | pa.Array, names: pa.Array) -> pa.Array:
    """Name the most probable class of each row."""
    return names.take(pa.array(most_probable_classes(schemas.to_matrix(probabilities)), pa.int64()))


def write_features(index: Index, features: ray.data.Dataset, row_count: int, counted: Any = None) -> Projected:
    """Write rows of `schemas.FEATURES` as large files of few classes each, so that a query reads fewer files.

    Args:
        index: the index.
        features: the rows.
        row_count: how many.
        counted: a reference to ids of the rows whose statistics are wanted; None: of all.
    """
    uri = index.uri

    def write(batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([_write(uri, batch, counted)] if len(batch) else [])

    files = math.ceil(row_count / FEATURES_PER_FILE)
    features = features.repartition(files)
    if files > 1:  # sorted by id as well, because all rows of one sort key go to one file
        features = features.sort([schemas.CLASS, schemas.IMAGE_ID])
    return _gathered(list(rows_of(features.map_batches(write, batch_size=None, batch_format="pyarrow"))))


def _write(uri: str, features: pa.Table, counted: Any = None) -> dict[str, Any]:
    """Write rows of `schemas.FEATURES` as one file; returns the fields of `WrittenFile` and the rows' statistics."""
    written = write_rows(uri, "features", *in_runs(features))
    if counted is not None:
        features = features.filter(pc.is_in(features[schemas.IMAGE_ID], ray.get(counted)))
    statistics = FeatureStatistics.of(features) if ERROR in features.column_names else FeatureStatistics()
    return written._asdict() | {"statistics": statistics.to_json()}


def _gathered(written: Sequence[dict[str, Any]]) -> Projected:
    """Combine the results of several calls of `_write`."""
    files = [WrittenFile(file["name"], file["size"], file["row_count"]) for file in written]
    return Projected(files, total(FeatureStatistics.from_json(file["statistics"]) for file in written))


def _pca_before(index: Index, published: pa.Table, config: IndexConfig) -> Pca | None:
    """Load the PCA of the published rows; None if there are none, or if it is lost and will be refitted anyway."""
    if len(published) == 0:
        return None
    try:
        return index.pca(published[schemas.PCA][0].as_py())
    except TableError:
        if config.refit_pca:
            return None
        raise


def _pca_for(index: Index, current: pa.Table, before: Pca | None, classes: int, config: IndexConfig) -> Pca:
    """Keep the PCA of the published rows, take more or fewer components of it, or fit another.

    Args:
        index: the index.
        current: keys of the rows, as `stored_keys` returns.
        before: of the published rows; None: there are none, or it is lost.
        classes: their number.
        config: the job's options.
    """
    components = config.components
    if before is None or (components is None and before.has_outgrown(classes, len(current))):
        return fit_pca(index, current, components, classes)
    if components is None:
        components = len(before.components)
        if config.refit_pca:  # to fewer rows, perhaps
            components = min(components, max(len(current) - 1, 1))
    too_few = before.moments.count <= components < len(current)  # it was fitted to
    if config.refit_pca or too_few:
        return fit_pca(index, current, components)
    return before if len(before.components) == components else before.moments.fit(components)


class Published(NamedTuple):
    """Report the outcome of publishing.

    Attributes:
        drift: how new rows differ from earlier ones; None: there are none, or the PCA was fitted to them.
        changed: number of rows added or removed; None: all.
    """

    drift: Drift | None
    changed: int | None


def publish(writer: IndexWriter, plan: Plan, classes: Sequence[str], config: IndexConfig) -> Published:
    """Make `features` match the listing in one atomic commit; commits nothing if it already does."""
    index = writer.index
    current = semi(stored_keys(index), plan.listing)
    published = index.keys("features", [schemas.PCA, schemas.CLASS, schemas.OBJECT_CLASS])
    before = _pca_before(index, published, config)
    pca = _pca_for(index, current, before, len(classes), config)
    kept = 0 if before is None else before.neighbours
    pca = replace(pca, neighbours=kept if config.average_neighbours is None else config.average_neighbours)
    root = archive_root(plan, config)
    if before is None or pca.fingerprint != before.fingerprint or has_moved(index, root):
        writer.put_pca(pca)
        writer.commit("features", project(index, current, pca, classes, root).files, "overwrite")
        return Published(None, None)
    new, leaving = anti(current, published), anti(published, current, [schemas.IMAGE_ID])
    if pca.neighbours and (len(new) or len(leaving)):  # the neighbours of any row may have changed
        projected = project(index, current, pca, classes, root, new)
        writer.commit("features", projected.files, "overwrite")
        return Published(_drift(published, before, projected.statistics), len(new) + len(leaving))
    replacing = None
    if len(leaving) or len(semi(new, published, [schemas.IMAGE_ID])):
        ids = pa.concat_tables([t.select([schemas.IMAGE_ID]) for t in (leaving, new)])[schemas.IMAGE_ID]
        replacing = Replacing(index, ids.combine_chunks())  # it works while new rows are projected
    projected = project(index, new, pca, classes, root)
    if replacing is not None:
        replacing.commit(writer, projected.files)
    elif projected.files:
        writer.commit("features", projected.files, "append")
    return Published(_drift(published, before, projected.statistics), len(new) + len(leaving))


def _drift(published: pa.Table, before: Pca, added: FeatureStatistics) -> Drift | None:
    """Compare added rows with the published ones; None: there are none."""
    return Drift(FeatureStatistics.of(published, before.mean_error), added) if added.count else None
