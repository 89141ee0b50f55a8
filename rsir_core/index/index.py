"""Read an index: its versions, rows, models and stored embeddings."""

import base64
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from rsir_core import schemas
from rsir_core.arrays import Floats
from rsir_core.errors import StorageError, TableError
from rsir_core.index.delta import TableFile, files_of
from rsir_core.index.layout import CLUSTERS, KEY, SCHEMAS, TableName, bundle_uri, pca_uri
from rsir_core.models.bundle import AS_IT_IS, Bundle, DescribingWays, check_bundle, load_bundle, read_settings
from rsir_core.models.pca import Pca
from rsir_core.models.settings import BundleSettings
from rsir_core.search.clusters import Clusters
from rsir_core.storage.filesystem import file_system, get_file, one_line, opened, reading_from

_ESCAPE, _ESCAPE_OR_END = re.compile("%[0-9A-Fa-f]{2}"), re.compile("%[0-9A-Fa-f]{2}|[?#]")


class Index:
    """Read an index folder on any storage that fsspec and Delta Lake open; `writer.IndexWriter` changes it.

    Args:
        uri: of the folder, which need not exist yet.

    Raises:
        StorageError: the protocol is unknown, or Delta Lake would misread the address.
    """

    def __init__(self, uri: str) -> None:
        fs, path = file_system(uri.rstrip("/"))
        is_local = "file" in fs.protocol
        self.uri: str = path if is_local else fs.unstrip_protocol(path)
        if odd := (_ESCAPE if is_local else _ESCAPE_OR_END).search(self.uri):
            raise StorageError(f"{uri}: Delta Lake reads {odd[0]!r} as part of an address; name the folder otherwise")

    def table_uri(self, name: TableName) -> str:
        """Return the URI of a Delta table of the index."""
        return f"{self.uri}/{name}"

    # What is published

    def version(self) -> int:
        """Return the newest published version.

        Raises:
            TableError: nothing is published yet.
        """
        version = int(self.open_table("features").version())
        if version == 0:  # the empty table, which is created just before the first commit
            raise TableError(f"nothing is published in {self.uri} yet; wait for jobs.index, or run it again")
        return version

    def table_version(self, name: TableName) -> int:
        """Return the newest version of a table; 0 if the table does not exist yet."""
        return int(self.open_table(name).version()) if self.has_table(name) else 0

    def features(self, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of a version (default: the newest), sorted by image id; schema `schemas.FEATURES`.

        Raises:
            TableError: the version does not exist, or one of its files is missing or damaged.
        """
        names = list(columns) if columns is not None else schemas.FEATURES.names
        opened = self.open_table("features", version)
        dataset = opened.to_pyarrow_dataset()
        wanted = dict.fromkeys([schemas.IMAGE_ID, *names])
        stored = [name for name in wanted if name in dataset.schema.names]
        with self._reading_features([file.name for file in files_of(opened)], f"a file of version {version}"):
            table = dataset.to_table(columns=stored).sort_by(schemas.IMAGE_ID)
        return _cast(schemas.with_added_columns(table).select(list(wanted)), schemas.FEATURES).select(names)

    def feature_files(self, version: int | None = None) -> list[TableFile]:
        """List the files of a version (default: the newest) of `features`, by name.

        Raises:
            TableError: no such version.
        """
        found = self.table_files("features", version)
        return [file if file.row_count >= 0 else TableFile(file.name, self._row_count(file.name)) for file in found]

    def table_files(self, name: TableName, version: int | None = None) -> list[TableFile]:
        """List the files of a table's version (default: the newest), by name; a row count of -1 means unknown."""
        return files_of(self.open_table(name, version))

    def read_features(self, file: TableFile) -> tuple[pa.Table, Clusters | None]:
        """Read a file's rows, schema `schemas.FEATURES`, in stored order, and their clusters, if the file has any."""
        with self.open_features(file.name) as parquet:
            table = parquet.read(schemas.FEATURES.names)
        runs = (parquet.metadata.metadata or {}).get(CLUSTERS)
        return _whole(table), None if runs is None else Clusters.from_bytes(base64.b64decode(runs))

    def read_columns(self, file: TableFile, names: Sequence[str]) -> pa.Table:
        """Read some columns of a file, in stored order."""
        with self.open_features(file.name) as parquet:
            return parquet.read(names)

    def models(self, version: int | None = None) -> set[tuple[str, str]]:
        """List the (bundle, PCA) fingerprints that the rows of a version (default: the newest) were made with.

        Raises:
            TableError: no such version.
        """
        names = [schemas.BUNDLE, schemas.PCA]
        found: set[tuple[str, str]] = set()
        for file in self.feature_files(version):
            with self.open_features(file.name, names) as parquet:
                table = parquet.read(names)
            pairs = table.group_by(names).aggregate([])
            found |= set(zip(*(pairs[name].to_pylist() for name in names), strict=True))
        return found

    def first_row(self, file: TableFile) -> pa.Table:
        """Read a file's first row, schema `schemas.FEATURES`; the file must not be empty."""
        with self.open_features(file.name) as parquet:
            batch = next(parquet.iter_batches(1, columns=schemas.FEATURES.names))
        return _whole(pa.Table.from_batches([batch]))

    @contextmanager
    def open_features(self, name: str, as_dictionary: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
        """Open a file of `features` for the body."""
        fs, path = opened(f"{self.table_uri('features')}/{name}")
        with (
            self._reading_features([name], name),
            pq.ParquetFile(path, filesystem=fs, read_dictionary=list(as_dictionary)) as parquet,
        ):
            yield parquet

    @contextmanager
    def _reading_features(self, names: Sequence[str], what: str) -> Iterator[None]:
        """Explain errors of reading files of `features` in the body, see `reading`; files may have been vacuumed."""
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
        """Count the rows of a file whose commit does not say how many it has."""
        with self.open_features(name) as parquet:
            return int(parquet.metadata.num_rows)

    def embeddings(self, features: pa.Table) -> Floats:
        """Read the stored embeddings (n, D) float32 of feature rows, in their order.

        Raises:
            TableError: one of the embeddings is not stored.
        """
        dataset = self.open_table("embeddings").to_pyarrow_dataset()
        wanted = pc.field(schemas.IMAGE_ID).isin(features[schemas.IMAGE_ID].combine_chunks())
        stored = dataset.to_table(columns=[*KEY, schemas.EMBEDDING], filter=wanted)
        place = {key: i for i, key in enumerate(_keys(stored))}
        try:
            order = [place[key] for key in _keys(features)]
        except KeyError as error:
            raise TableError(f"{self.uri} has no embedding of {error.args[0][0]}; index its archive again") from error
        return schemas.to_matrix(stored[schemas.EMBEDDING])[order]

    def bundle(self, fingerprint: str | None = None) -> Bundle:
        """Load the index's own copy of the model bundle."""
        return load_bundle(bundle_uri(self.uri), fingerprint)

    def bundle_settings(self, fingerprint: str | None = None, check_weights: bool = False) -> BundleSettings:
        """Read the index's own copy of the model bundle without its weights, see `read_settings`."""
        return read_settings(bundle_uri(self.uri), fingerprint, check_weights)

    def check_bundle(self, models: str, ways: DescribingWays = AS_IT_IS) -> str:
        """Check that a model bundle is, or may become, the index's own; returns its fingerprint there.

        Raises:
            BundleError: the index was described with another bundle.
        """
        return check_bundle(models, bundle_uri(self.uri), ways, self.described_with())

    def pca(self, fingerprint: str) -> Pca:
        """Load a PCA that rows refer to.

        Raises:
            TableError: it is missing.
        """
        uri = pca_uri(self.uri, fingerprint)
        try:
            return Pca.from_bytes(get_file(uri))
        except FileNotFoundError as error:
            raise TableError(f"{uri} is missing; make it again with jobs.index --refit-pca") from error
        except KeyError as error:
            raise TableError(
                f"{uri} is of another format (no {error}); index with the version that wrote it"
            ) from error

    def has_pca(self, fingerprint: str) -> bool:
        """Tell whether a PCA that rows refer to exists."""
        fs, path = opened(pca_uri(self.uri, fingerprint), use_listings_cache=False)
        with reading_from(self.uri):
            return bool(fs.exists(path))

    def described_with(self) -> str | None:
        """Return the fingerprint of the bundle that all stored embeddings have; None if there are none."""
        if not self.has_table("embeddings"):
            return None
        with self.reading("embeddings"):
            found = self.open_table("embeddings").to_pyarrow_dataset().head(1, columns=[schemas.BUNDLE])
        return found[schemas.BUNDLE][0].as_py() if len(found) else None

    def keys(self, name: TableName, more: Sequence[str] = ()) -> pa.Table:
        """Read columns `image_id`, `etag` and `more` of a table; no rows if the table does not exist yet."""
        return self.rows(name, [*KEY, *more])

    @contextmanager
    def reading(self, name: TableName) -> Iterator[None]:
        """Convert errors of reading a table's files in the body.

        Raises:
            TableError: a file is missing or damaged.
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
        """Read how scenes are cut by a tiling, schema `schemas.SCENES`, one row per scene and etag."""
        return self.rows("scenes", schemas.SCENES.names, pc.field("tiling") == tiling)

    def rows(self, name: TableName, columns: Sequence[str], wanted: pc.Expression | None = None) -> pa.Table:
        """Read columns of the rows that pass a filter; no rows if the table does not exist yet."""
        if not self.has_table(name):
            return pa.schema([SCHEMAS[name].field(column) for column in columns]).empty_table()
        with self.reading(name):
            dataset = self.open_table(name).to_pyarrow_dataset()
            stored = [column for column in columns if column in dataset.schema.names]
            found = dataset.to_table(columns=stored, filter=wanted)
        for column in columns:
            if column not in stored:  # an older table, which a run completes
                found = found.append_column(column, pa.nulls(len(found), SCHEMAS[name].field(column).type))
        return _cast(found.select(list(columns)), SCHEMAS[name])

    def has_table(self, name: TableName) -> bool:
        """Tell whether a table exists."""
        with reading_from(self.uri):
            return bool(DeltaTable.is_deltatable(self.table_uri(name)))

    def open_table(self, name: TableName, version: int | None = None) -> DeltaTable:
        """Open a version (default: the newest) of a table.

        Raises:
            TableError: the table does not exist, or the version does not exist any more.
        """
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
    return _cast(schemas.with_added_columns(features).select(schemas.FEATURES.names), schemas.FEATURES)


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast to our own types; Delta Lake returns view and large types, and marks all columns as nullable."""
    return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def _keys(table: pa.Table) -> list[tuple[str, str]]:
    ids, etags = (np.asarray(table[column].to_pylist(), dtype=object) for column in KEY)
    return list(zip(ids, etags, strict=True))
