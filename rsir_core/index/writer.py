"""Writing to an index: files that nobody sees yet, by any worker; every change that readers see, under the lease."""

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
from rsir_core.index.layout import CLUSTERS, GEO, KEY, SCHEMAS, TableName, bundle_uri, pca_uri
from rsir_core.index.lease import Lease
from rsir_core.models.pca import Pca
from rsir_core.search.clusters import Clusters
from rsir_core.storage.filesystem import put_file


def write_rows(index: str, name: TableName, table: pa.Table, clusters: Clusters | None = None) -> WrittenFile:
    """Write rows as one Parquet file that no reader sees before `IndexWriter.commit`; workers need no lease for it.

    Args:
        index: URI of the index.
        name: of the table.
        table: with at least its columns.
        clusters: of `features`: the runs that the rows lie in; they go into the file's footer.
    """
    schema = SCHEMAS[name]
    strings = [f.name for f in schema if pa.types.is_string(f.type)]
    vectors = [f"{f.name}.list.element" for f in schema if f.type == schemas.VECTOR]
    data = io.BytesIO()
    encoding = dict.fromkeys(vectors, "BYTE_STREAM_SPLIT")
    with pq.ParquetWriter(data, schema, compression="zstd", use_dictionary=strings, column_encoding=encoding) as writer:
        writer.write_table(table.select(schema.names).cast(schema))
        if name == "features":
            writer.add_key_value_metadata({"geo": json.dumps(GEO)})
        if clusters is not None:  # as text: other readers of Parquet refuse bytes here
            writer.add_key_value_metadata({CLUSTERS: base64.b64encode(clusters.to_bytes())})
    file = f"part-{uuid.uuid4().hex}.parquet"
    put_file(f"{index}/{name}/{file}", data.getvalue())
    return WrittenFile(file, data.tell(), len(table))


class IndexWriter:
    """Change an index for one run: under its lease, and onto the versions that the run has seen.

    Tables that an older version wrote get the columns that they lack, each in a version of its own.

    Args:
        index: the index.
        lease: of it, taken.

    Raises:
        LeaseError: another run has taken the lease over; from every method.
        ConflictError: somebody else has committed since; then nothing is visible.
        StorageError: the store does not take it; then nothing is visible.
    """

    def __init__(self, index: Index, lease: Lease) -> None:
        self.index, self._lease = index, lease
        for name in SCHEMAS:
            self._add_missing_columns(name)
        self._versions: dict[TableName, int] = {name: index.table_version(name) for name in SCHEMAS}

    def check_lease(self) -> None:
        """Make sure that this run may still change the index; see `Lease.check`."""
        self._lease.check()

    def commit(
        self, name: TableName, files: Sequence[WrittenFile], mode: Mode, removed: Sequence[TableFile] = ()
    ) -> int:
        """Make written files visible in one atomic commit; returns the version.

        Args:
            name: of the table.
            files: what is new.
            mode: beside the rows that are there, or instead of them all.
            removed: files that go in the same commit, where others stay.
        """
        self.check_lease()
        table = table_at(self.index.table_uri(name), SCHEMAS[name], self._versions[name])
        self._versions[name] = commit_files(table, files, mode, removed)
        return self._versions[name]

    def drop_failures(self, files: pa.Table) -> None:
        """Remove the failures of files (columns `image_id`, `etag`) that were read after all, changed or went away."""
        if len(files) == 0:
            return
        self.check_lease()
        table = table_at(self.index.table_uri("failures"), schemas.FAILURES, self._versions["failures"])
        same = "t.image_id = s.image_id AND t.etag = s.etag"
        merge = table.merge(
            files.select(KEY), same, source_alias="s", target_alias="t", commit_properties=ONTO_THIS
        ).when_matched_delete()
        self._versions["failures"] = changed(table, merge.execute)

    def adopt_bundle(self, models: str, views: int | None = None) -> str:
        """Copy a model bundle into the index, or check that it is the index's own; returns its fingerprint there."""
        from rsir_core.models.bundle import copy_bundle  # noqa: PLC0415 -- brings torch, which few writers need

        self.check_lease()
        return copy_bundle(models, bundle_uri(self.index.uri), views, self.index.described_with())

    def put_pca(self, pca: Pca) -> None:
        """Store a PCA under its fingerprint."""
        self.put(pca_uri(self.index.uri, pca.fingerprint), pca.to_bytes())

    def put(self, uri: str, data: bytes) -> None:
        """Write a file of the index that is no table's."""
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
