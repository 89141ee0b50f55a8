"""The index on storage: its folders, and Delta tables that workers write files of and one committer commits.

features/     what is published: one row per image of the archive, changed in one atomic commit
embeddings/   append-only cache of what was described, keyed by image id and etag
failures/     files that should be images and cannot be
scenes/       how large rasters are cut into tiles
pca/          fitted PCAs by fingerprint
no_match/     by version of features: from where on the best row is no match
bundle/       the model bundle that everything here was described with
lease/        who may change the index
runs/         a report of each run
last_run.json what the newest run came to, for monitoring
"""

import base64
import io
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import TableNotFoundError

from rsir_core import schemas
from rsir_core.errors import StorageError, TableError
from rsir_core.index.delta import ONTO_THIS, Mode, TableFile, WrittenFile, changed, commit_files, files_of, table_at
from rsir_core.models.pca import Pca
from rsir_core.search.clusters import Clusters
from rsir_core.storage.filesystem import file_system, one_line, put_file, reading_from

if TYPE_CHECKING:
    from rsir_core.models.bundle import Bundle
    from rsir_core.models.settings import BundleSettings

TableName = Literal["features", "embeddings", "failures", "scenes"]
SCHEMAS: Final[dict[TableName, pa.Schema]] = {
    "features": schemas.FEATURES,
    "embeddings": schemas.EMBEDDINGS,
    "failures": schemas.FAILURES,
    "scenes": schemas.SCENES,
}
CLUSTERS: Final = b"rsir.clusters"  # in a file's footer
GEO: Final = {  # as well, of `features`: what makes it GeoParquet; lon/lat is its default
    "version": "1.1.0",
    "primary_column": schemas.GEOMETRY,
    "columns": {
        schemas.GEOMETRY: {
            "encoding": "WKB",
            "geometry_types": ["Polygon", "MultiPolygon"],
            "orientation": "counterclockwise",
            "covering": {"bbox": {name: [schemas.BBOX, name] for name in schemas.BBOX_FIELDS}},
        }
    },
}
_ESCAPE, _ESCAPE_OR_END = re.compile("%[0-9A-Fa-f]{2}"), re.compile("%[0-9A-Fa-f]{2}|[?#]")
KEY: Final = [schemas.IMAGE_ID, schemas.ETAG]


class Index:
    """An index folder on any storage that fsspec and Delta Lake open.

    Args:
        uri: the folder; it need not exist before something is written.

    Raises:
        StorageError: its protocol is unknown, or Delta Lake would look for its tables elsewhere.
    """

    def __init__(self, uri: str) -> None:
        fs, path = file_system(uri.rstrip("/"))
        is_local = "file" in fs.protocol
        self.uri: str = path if is_local else fs.unstrip_protocol(path)
        if odd := (_ESCAPE if is_local else _ESCAPE_OR_END).search(self.uri):
            raise StorageError(f"{uri}: Delta Lake reads {odd[0]!r} as part of an address; name the folder otherwise")

    def table_uri(self, name: TableName) -> str:
        """Locate a Delta table of the index."""
        return f"{self.uri}/{name}"

    # What is published

    def version(self) -> int:
        """Return the newest published version.

        Raises:
            TableError: nothing has been published here.
        """
        version = int(self._open("features").version())
        if version == 0:  # the table without a row, as it is made just before the first commit
            raise TableError(f"nothing is published in {self.uri} yet; wait for jobs.index, or run it again")
        return version

    def table_version(self, name: TableName) -> int:
        """Return the newest version of a table, published or not; 0 where there is no such table yet."""
        return int(self._open(name).version()) if self._is_there(name) else 0

    def features(self, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of a version (default: the newest), sorted by image id; schema `schemas.FEATURES`.

        Raises:
            TableError: no such version, or a file of it is missing or damaged.
        """
        names = list(columns) if columns is not None else schemas.FEATURES.names
        opened = self._open("features", version)
        dataset = opened.to_pyarrow_dataset()
        wanted = dict.fromkeys([schemas.IMAGE_ID, *names])
        stored = [name for name in wanted if name in dataset.schema.names]
        with self._reading_features([file.name for file in files_of(opened)], f"a file of version {version}"):
            table = dataset.to_table(columns=stored).sort_by(schemas.IMAGE_ID)
        return _cast(schemas.completed(table).select(list(wanted)), schemas.FEATURES).select(names)

    def feature_files(self, version: int | None = None) -> list[TableFile]:
        """List the files of a version (default: the newest) of `features`, by name.

        Raises:
            TableError: no such version.
        """
        found = self.table_files("features", version)
        return [file if file.row_count >= 0 else TableFile(file.name, self._row_count(file.name)) for file in found]

    def table_files(self, name: TableName, version: int | None = None) -> list[TableFile]:
        """List the files of a version (default: the newest) of a table, by name; -1 rows: who wrote one did not say."""
        return files_of(self._open(name, version))

    def read_features(self, file: TableFile) -> tuple[pa.Table, Clusters | None]:
        """Read a file's rows, schema `schemas.FEATURES`, in their order, and their clusters; None: it has none."""
        with self._parquet(file.name) as parquet:
            table = parquet.read(schemas.FEATURES.names)
        runs = (parquet.metadata.metadata or {}).get(CLUSTERS)
        return _whole(table), None if runs is None else Clusters.from_bytes(base64.b64decode(runs))

    def read_columns(self, file: TableFile, names: Sequence[str]) -> pa.Table:
        """Read some columns of a file's rows, as they lie in it."""
        with self._parquet(file.name) as parquet:
            return parquet.read(names)

    def models(self, version: int | None = None) -> set[tuple[str, str]]:
        """List fingerprints of bundle and PCA that the rows of a version (default: the newest) were made with.

        Raises:
            TableError: no such version.
        """
        names = [schemas.BUNDLE, schemas.PCA]
        found: set[tuple[str, str]] = set()
        for file in self.feature_files(version):
            with self._parquet(file.name, names) as parquet:
                table = parquet.read(names)
            pairs = table.group_by(names).aggregate([])
            found |= set(zip(*(pairs[name].to_pylist() for name in names), strict=True))
        return found

    def first_row(self, file: TableFile) -> pa.Table:
        """Read a file's first row, schema `schemas.FEATURES`; the file has one."""
        with self._parquet(file.name) as parquet:
            batch = next(parquet.iter_batches(1, columns=schemas.FEATURES.names))
        return _whole(pa.Table.from_batches([batch]))

    @contextmanager
    def _parquet(self, name: str, as_dictionary: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
        """Open a file of `features`, to be read in the body."""
        fs, path = fsspec.core.url_to_fs(f"{self.table_uri('features')}/{name}")
        with (
            self._reading_features([name], name),
            pq.ParquetFile(path, filesystem=fs, read_dictionary=list(as_dictionary)) as parquet,
        ):
            yield parquet

    @contextmanager
    def _reading_features(self, names: Sequence[str], what: str) -> Iterator[None]:
        """Read files of `features` in the body; see `reading`. They go with the last kept version that has them."""
        try:
            with self.reading("features"):
                yield
        except TableError as error:
            lost = isinstance(error.__cause__, FileNotFoundError)
            if lost and not {file.name for file in self.table_files("features")}.issuperset(names):
                raise TableError(
                    f"{what} of {self.uri} is gone: its version is older than what jobs.index --vacuum keeps; ask for "
                    "a newer one"
                ) from error
            raise

    def _row_count(self, name: str) -> int:
        """Count the rows of a file that somebody wrote without saying it."""
        with self._parquet(name) as parquet:
            return int(parquet.metadata.num_rows)

    def embeddings(self, features: pa.Table) -> schemas.Floats:
        """Read the stored embeddings (n, D) float32 of feature rows, in their order.

        Raises:
            TableError: one of them is not stored.
        """
        dataset = self._open("embeddings").to_pyarrow_dataset()
        wanted = pc.field(schemas.IMAGE_ID).isin(features[schemas.IMAGE_ID].combine_chunks())
        stored = dataset.to_table(columns=[*KEY, schemas.EMBEDDING], filter=wanted)
        place = {key: i for i, key in enumerate(_keys(stored))}
        try:
            order = [place[key] for key in _keys(features)]
        except KeyError as error:
            raise TableError(f"{self.uri} has no embedding of {error.args[0][0]}; index its archive again") from error
        return schemas.to_matrix(stored[schemas.EMBEDDING])[order]

    def bundle(self, fingerprint: str | None = None) -> "Bundle":
        """Load the index's own copy of the model bundle."""
        from rsir_core.models.bundle import load_bundle  # noqa: PLC0415 -- brings torch, which few users of tables need

        return load_bundle(f"{self.uri}/bundle", fingerprint)

    def bundle_settings(self, fingerprint: str) -> "BundleSettings":
        """Read what a bundle of the index is besides its weights."""
        from rsir_core.models.bundle import read_settings  # noqa: PLC0415 -- as above

        return read_settings(f"{self.uri}/bundle", fingerprint)

    def pca(self, fingerprint: str) -> Pca:
        """Load a PCA that rows refer to.

        Raises:
            TableError: it is missing.
        """
        fs, path = fsspec.core.url_to_fs(self._pca_uri(fingerprint))
        try:
            return Pca.from_bytes(fs.cat_file(path))
        except FileNotFoundError as error:
            raise TableError(f"{path} is missing; make it again with jobs.index --refit-pca") from error
        except KeyError as error:
            raise TableError(
                f"{path} is of another format (no {error}); index with the version that wrote it"
            ) from error

    def has_pca(self, fingerprint: str) -> bool:
        """Tell whether a PCA that rows refer to is there."""
        fs, path = fsspec.core.url_to_fs(self._pca_uri(fingerprint), use_listings_cache=False)
        with reading_from(self.uri):
            return bool(fs.exists(path))

    # What the index job changes

    def adopt_bundle(self, models: str, views: int | None = None, copy: bool = True) -> str:
        """Copy a model bundle into the index, or check that it is the index's own; returns its fingerprint there."""
        from rsir_core.models.bundle import check_bundle, copy_bundle  # noqa: PLC0415 -- as above

        target = f"{self.uri}/bundle"
        return (copy_bundle if copy else check_bundle)(models, target, views, self._described_with())

    def _described_with(self) -> str | None:
        """Find the bundle of the embeddings, all of which have the same; None: there are none."""
        if not self._is_there("embeddings"):
            return None
        with self.reading("embeddings"):
            found = self._open("embeddings").to_pyarrow_dataset().head(1, columns=[schemas.BUNDLE])
        return found[schemas.BUNDLE][0].as_py() if len(found) else None

    def put_pca(self, pca: Pca) -> None:
        """Store a PCA under its fingerprint."""
        put_file(self._pca_uri(pca.fingerprint), pca.to_bytes())

    def keys(self, name: TableName, more: Sequence[str] = ()) -> pa.Table:
        """Read columns `image_id`, `etag` and `more` of a table; no row if there is no such table yet."""
        names = [*KEY, *more]
        if not self._is_there(name):
            return pa.schema([SCHEMAS[name].field(n) for n in names]).empty_table()
        with self.reading(name):
            return _cast(self._open(name).to_pyarrow_dataset().to_table(columns=names), SCHEMAS[name]).select(names)

    @contextmanager
    def reading(self, name: TableName) -> Iterator[None]:
        """Explain what it means that a table's files cannot be read in the body.

        Raises:
            TableError: one is missing or damaged.
            StorageError: the store does not answer, or refuses.
        """
        uri = self.table_uri(name)
        try:
            with reading_from(uri):
                yield
        except (FileNotFoundError, StorageError) as error:
            if isinstance(error, StorageError) and not isinstance(error.__cause__, pa.ArrowInvalid):
                raise
            raise TableError(
                f"{uri} has lost a file, or one is damaged ({one_line(error)}); copy it back, or remove that folder "
                "and run jobs.index again, which makes it anew"
            ) from error

    def scenes(self, tiling: str) -> pa.Table:
        """Read how scenes are cut by a tiling, schema `schemas.SCENES`, once for each content; no row if none was."""
        if not self._is_there("scenes"):
            return schemas.SCENES.empty_table()
        with self.reading("scenes"):
            found = self._open("scenes").to_pyarrow_dataset().to_table(filter=pc.field("tiling") == tiling)
        return _cast(found.select(schemas.SCENES.names), schemas.SCENES)

    def write_rows(self, name: TableName, table: pa.Table, clusters: Clusters | None = None) -> WrittenFile:
        """Write rows as one Parquet file that no reader sees before `commit`; for workers.

        Args:
            name: of the table.
            table: with at least its columns.
            clusters: of `features`: the runs that the rows lie in; they go into the file's footer.
        """
        schema = SCHEMAS[name]
        plain = [f.name for f in schema if pa.types.is_string(f.type)]
        vectors = [f"{f.name}.list.element" for f in schema if f.type == schemas.VECTOR]
        data = io.BytesIO()
        encoding = dict.fromkeys(vectors, "BYTE_STREAM_SPLIT")
        with pq.ParquetWriter(
            data, schema, compression="zstd", use_dictionary=plain, column_encoding=encoding
        ) as writer:
            writer.write_table(table.select(schema.names).cast(schema))
            if name == "features":
                writer.add_key_value_metadata({"geo": json.dumps(GEO)})
            if clusters is not None:  # as text: other readers of Parquet refuse bytes here
                writer.add_key_value_metadata({CLUSTERS: base64.b64encode(clusters.to_bytes())})
        file = f"part-{uuid.uuid4().hex}.parquet"
        put_file(f"{self.table_uri(name)}/{file}", data.getvalue())
        return WrittenFile(file, data.tell(), len(table))

    def commit(
        self,
        name: TableName,
        files: Sequence[WrittenFile],
        mode: Mode,
        removed: Sequence[TableFile] = (),
        onto: int | None = None,
    ) -> int:
        """Make written files visible in one atomic commit; returns the version.

        Args:
            name: of the table.
            files: what is new.
            mode: beside the rows that are there, or instead of them all.
            removed: files that go in the same commit, where others stay.
            onto: the version that the commit was made for (default: the newest); it becomes the next one or none.

        Raises:
            ConflictError: somebody else has committed since.
            StorageError: the store does not take it; then nothing is visible.
        """
        return commit_files(table_at(self.table_uri(name), SCHEMAS[name], onto), files, mode, removed)

    def complete(self, name: TableName) -> None:
        """Give a table that an older version wrote the columns that it has not, in a version of its own.

        Raises:
            ConflictError, StorageError: see `commit`.
        """
        if not self._is_there(name):
            return
        table = self._open(name)
        known = {field.name for field in table.schema().fields}
        if missing := [field for field in Schema.from_arrow(SCHEMAS[name]).fields if field.name not in known]:
            changed(table, lambda: table.alter.add_columns(missing, commit_properties=ONTO_THIS))

    def drop_failures(self, files: pa.Table, onto: int | None = None) -> int:
        """Remove the failures of files (columns `image_id`, `etag`) that were read after all, changed or went away.

        Returns the version of the table. `onto` is that of `commit`.
        """
        table = table_at(self.table_uri("failures"), schemas.FAILURES, onto)
        if len(files) == 0:
            return int(table.version())
        same = "t.image_id = s.image_id AND t.etag = s.etag"
        merge = table.merge(
            files.select(KEY), same, source_alias="s", target_alias="t", commit_properties=ONTO_THIS
        ).when_matched_delete()
        return changed(table, merge.execute)

    @property
    def no_match_uri(self) -> str:
        """The folder of what `no_match` stores."""
        return f"{self.uri}/no_match"

    def _pca_uri(self, fingerprint: str) -> str:
        return f"{self.uri}/pca/{fingerprint}.safetensors"

    def _is_there(self, name: TableName) -> bool:
        with reading_from(self.uri):
            return bool(DeltaTable.is_deltatable(self.table_uri(name)))

    def _open(self, name: TableName, version: int | None = None) -> DeltaTable:
        try:
            return DeltaTable(self.table_uri(name), version=version)
        except TableNotFoundError as error:
            raise TableError(f"no index at {self.uri} (table `{name}` is missing); make one with jobs.index") from error
        except Exception as error:
            if version is None:
                raise TableError(f"the index at {self.uri} cannot be read: {one_line(error)}") from error
            raise TableError(f"{self.uri} has no version {version} any more: {one_line(error)}") from error


def _whole(features: pa.Table) -> pa.Table:
    """Complete rows of a file to schema `schemas.FEATURES`."""
    return _cast(schemas.completed(features).select(schemas.FEATURES.names), schemas.FEATURES)


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast to our own types: Delta Lake hands out views and large types, and says that all can be null."""
    return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def _keys(table: pa.Table) -> list[tuple[str, str]]:
    ids, etags = (np.asarray(table[column].to_pylist(), dtype=object) for column in KEY)
    return list(zip(ids, etags, strict=True))
