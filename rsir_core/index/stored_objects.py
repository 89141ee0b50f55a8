"""Read the further objects of images from files of `features`."""

import base64
from collections.abc import Sequence

import pyarrow as pa

from rsir_core import schemas
from rsir_core.index.delta import TableFile
from rsir_core.index.index import Index
from rsir_core.index.layout import OBJECT_CLUSTERS
from rsir_core.index.object_rows import ObjectRows, object_rows
from rsir_core.search.clusters import Clusters


def read_with_objects(index: Index, file: TableFile) -> tuple[pa.Table, Clusters | None]:
    """Read a file's rows as `Index.read_features` does, with the further objects of their images, if it has any."""
    table, clusters = index.read_features(file)
    with index.open_features(file.name) as parquet:
        if schemas.OBJECTS not in parquet.schema_arrow.names:
            return table, clusters
        objects = parquet.read([schemas.OBJECTS])[schemas.OBJECTS]
    field = schemas.FEATURES_WITH_OBJECTS.field(schemas.OBJECTS)
    return table.append_column(field, objects.cast(field.type)), clusters


def read_objects(index: Index, file: TableFile) -> ObjectRows | None:
    """Read the further objects of a file's images as rows; None: the file has none."""
    clusters = _clusters(index, file)
    return None if clusters is None else object_rows(read_with_objects(index, file)[0], clusters)


def count_objects(index: Index, files: Sequence[TableFile]) -> int:
    """Count the further objects of the images of several files."""
    found = (_clusters(index, file) for file in files)
    return sum(0 if clusters is None else int(clusters.count.sum()) for clusters in found)


def _clusters(index: Index, file: TableFile) -> Clusters | None:
    with index.open_features(file.name) as parquet:
        runs = (parquet.metadata.metadata or {}).get(OBJECT_CLUSTERS)
    return None if runs is None else Clusters.from_bytes(base64.b64decode(runs))
