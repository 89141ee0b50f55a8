"""Write to an index: any worker writes files that are not visible yet; visible changes are made under the lease."""

import base64
import io
import json
import uuid
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import Schema

from rsir_core import schemas
from rsir_core.index.delta import ONTO_THIS, Mode, TableFile, WrittenFile, changed, commit_files, table_at
from rsir_core.index.index import Index
from rsir_core.index.layout import (
    CLUSTERS,
    GEO,
    KEY,
    OBJECT_CLUSTERS,
    SCHEMAS,
    WITH_OBJECTS,
    TableName,
    bundle_uri,
    pca_uri,
)
from rsir_core.index.lease import Lease
from rsir_core.index.object_rows import clustered, has_objects
from rsir_core.models.bundle import AS_IT_IS, DescribingWays, copy_bundle
from rsir_core.models.pca import Pca
from rsir_core.search.clusters import Clusters
from rsir_core.storage.filesystem import put_file


def write_rows(index: str, name: TableName, table: pa.Table, clusters: Clusters | None = None) -> WrittenFile:
    """Write rows as a Parquet file that stays invisible until `IndexWriter.commit`; workers need no lease.

    Args:
        index: URI of the index.
        name: name of the table.
        table: rows with at least the table's columns.
        clusters: for `features`: the rows' clusters, which are stored in the file's footer.

    Where rows have further objects, these are clustered here.
    """
    schema, objects = SCHEMAS[name], None
    if has_objects(table):
        schema = WITH_OBJECTS[name]
        table, objects = clustered(table) if name == "features" else (table, None)
    leaves = [("", field) for field in schema]
    leaves += [(f"{schemas.OBJECTS}.list.element.", f) for f in _fields_of_objects(schema)]
    strings = [f"{below}{f.name}" for below, f in leaves if pa.types.is_string(f.type)]
    vectors = [f"{below}{f.name}.list.element" for below, f in leaves if f.type == schemas.VECTOR]
    data = io.BytesIO()
    encoding = dict.fromkeys(vectors, "BYTE_STREAM_SPLIT")
    with pq.ParquetWriter(data, schema, compression="zstd", use_dictionary=strings, column_encoding=encoding) as writer:
        writer.write_table(table.select(schema.names).cast(schema))
        if name == "features":
            writer.add_key_value_metadata({"geo": json.dumps(GEO)})
        if clusters is not None:  # as text, because other Parquet readers refuse bytes here
            writer.add_key_value_metadata({CLUSTERS: base64.b64encode(clusters.to_bytes())})
        if objects is not None:
            writer.add_key_value_metadata({OBJECT_CLUSTERS: base64.b64encode(objects.to_bytes())})
    file = f"part-{uuid.uuid4().hex}.parquet"
    put_file(f"{index}/{name}/{file}", data.getvalue())
    return WrittenFile(file, data.tell(), len(table))


def _fields_of_objects(schema: pa.Schema) -> list[pa.Field]:
    return list(schema.field(schemas.OBJECTS).type.value_type) if schemas.OBJECTS in schema.names else []


class IndexWriter:
    """Change an index during one run: under its lease, and only on top of the versions that the run knows.

    Tables written by an older version of this package first get the columns that they lack.

    Args:
        index: the index.
        lease: the run's lease on it.

    Raises:
        LeaseError: another run has taken over the lease; every method may raise it.
        ConflictError: another writer has committed since; then nothing becomes visible.
        StorageError: the store refuses or fails; then nothing becomes visible.
    """

    def __init__(self, index: Index, lease: Lease) -> None:
        self.index, self._lease, self._schemas = index, lease, dict(SCHEMAS)
        for name in SCHEMAS:
            self._add_missing_columns(name)
        self._versions: dict[TableName, int] = {name: index.table_version(name) for name in SCHEMAS}

    def check_lease(self) -> None:
        """Check that this run may still change the index, see `Lease.check`."""
        self._lease.check()

    def commit(
        self, name: TableName, files: Sequence[WrittenFile], mode: Mode, removed: Sequence[TableFile] = ()
    ) -> int:
        """Make written files visible in one atomic commit; returns the version.

        Args:
            name: name of the table.
            files: the new files.
            mode: `append` keeps the existing rows, `overwrite` replaces them all.
            removed: with `append`, files to remove in the same commit.
        """
        self.check_lease()
        table = table_at(self.index.table_uri(name), self._schemas[name], self._versions[name])
        self._versions[name] = commit_files(table, files, mode, removed)
        return self._versions[name]

    def drop_failures(self, files: pa.Table) -> None:
        """Remove the failures of files (columns `image_id`, `etag`) that were described since, changed or deleted."""
        if len(files) == 0:
            return
        self.check_lease()
        table = table_at(self.index.table_uri("failures"), schemas.FAILURES, self._versions["failures"])
        same = "t.image_id = s.image_id AND t.etag = s.etag"
        merge = table.merge(
            files.select(KEY), same, source_alias="s", target_alias="t", commit_properties=ONTO_THIS
        ).when_matched_delete()
        self._versions["failures"] = changed(table, merge.execute)

    def adopt_bundle(self, models: str, ways: DescribingWays = AS_IT_IS) -> str:
        """Copy a model bundle into the index, or check that it is the index's own; returns its fingerprint there."""
        self.check_lease()
        fingerprint = copy_bundle(models, bundle_uri(self.index.uri), ways, self.index.described_with())
        if self.index.bundle_settings().regions > 1:
            self._schemas |= WITH_OBJECTS
        return fingerprint

    def put_pca(self, pca: Pca) -> None:
        """Store a PCA under its fingerprint."""
        self.put(pca_uri(self.index.uri, pca.fingerprint), pca.to_bytes())

    def put(self, uri: str, data: bytes) -> None:
        """Write a file of the index that belongs to no table."""
        self.check_lease()
        put_file(uri, data)

    def _add_missing_columns(self, name: TableName) -> None:
        if not self.index.has_table(name):
            return
        table = self.index.open_table(name)
        known = {field.name for field in table.schema().fields}
        if missing := [field for field in Schema.from_arrow(SCHEMAS[name]).fields if field.name not in known]:
            self.check_lease()
            changed(table, lambda: table.alter.add_columns(missing, commit_properties=ONTO_THIS))
