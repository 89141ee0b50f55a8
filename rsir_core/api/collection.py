"""A named collection of an index: which label its images have, read and changed from Python."""

import getpass
import os
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from rsir_core import schemas
from rsir_core.api.hit import Hit
from rsir_core.archive.labels import labels_to_csv
from rsir_core.export.formats import export_rows
from rsir_core.export.rows import labelled_rows
from rsir_core.index.index import Index
from rsir_core.index.labels import check_names, read_labels, save_labels
from rsir_core.retrieval.query import Descriptor
from rsir_core.storage.filesystem import put_file

Image = str | Hit  # an indexed image, by its id or URI, or as a result


class Collection:
    """Read and change the labels of a collection; others may do so at the same time, and every change is kept.

    Args:
        index: where the labels are kept.
        name: 1 to 64 characters; the first label begins a new collection.
        find: returns the indexed image of an id or a URI.
        rows_of: returns the indexed rows of image ids.

    Raises:
        QueryError: the name is not allowed.
    """

    def __init__(
        self, index: Index, name: str, find: Callable[[str], Descriptor], rows_of: Callable[[list[str]], pa.Table]
    ) -> None:
        check_names(name, {})
        self._index, self.name, self._find, self._rows_of = index, name, find, rows_of

    def __repr__(self) -> str:
        return f"<collection {self.name!r} of {self._index.uri}: {len(self.to_arrow())} labelled images>"

    def label(self, labels: Mapping[str, str | None] | Iterable[Image], label: str = "good", by: str = "") -> None:
        """Label images, in one atomic commit.

        Args:
            labels: the label of each image, by its id or URI, where None withdraws one; or images, which all get
                `label`.
            label: of these.
            by: who labels; empty: the user of this process.

        Raises:
            QueryError: an image is not in the index, or a label is not allowed.
            ReadOnlyError: the index may not be written to.
            StorageError: the store fails; then nothing is saved.
        """
        given = labels if isinstance(labels, Mapping) else dict.fromkeys(map(_name_of, labels), label)
        found = {name: self._find(name) for name in given}
        by_id = {str(image.image_id): given[name] for name, image in found.items()}
        uris = {str(image.image_id): str(image.uri) for image in found.values()}
        save_labels(self._index, self.name, by_id, uris, by or getpass.getuser())

    def withdraw(self, images: Iterable[Image], by: str = "") -> None:
        """Withdraw the labels of images; raises as `label` does."""
        self.label({_name_of(image): None for image in images}, by=by)

    def to_arrow(self) -> pa.Table:
        """Return one row per labelled image, by image id: id, URI, label, by whom (null: unknown), and when (UTC)."""
        return read_labels(self._index, self.name).drop_columns([schemas.COLLECTION])

    def labels(self) -> dict[str, str]:
        """Return the label of each image by its id."""
        rows = self.to_arrow()
        return dict(zip(rows[schemas.IMAGE_ID].to_pylist(), rows[schemas.LABEL].to_pylist(), strict=True))

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the labels, and what the index knows of their images, as a file.

        Args:
            path: path or URI; its suffix says the format: `.csv`, `.geojson`, `.gpkg` or `.parquet` (GeoParquet).

        Raises:
            ConfigError: another suffix.
            StorageError: it cannot be written.
        """
        labels = read_labels(self._index, self.name)
        export_rows(labelled_rows(labels, self._rows_of(labels[schemas.IMAGE_ID].to_pylist())), os.fspath(path))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the labels as CSV with the columns `uri,label`, which `jobs.finetune_classifier --labels` takes.

        Raises:
            StorageError: it cannot be written.
        """
        rows = self.to_arrow()
        pairs = zip(rows[schemas.URI].to_pylist(), rows[schemas.LABEL].to_pylist(), strict=True)
        put_file(os.fspath(path), labels_to_csv(pairs).encode())


def _name_of(image: Image) -> str:
    return image.image_id if isinstance(image, Hit) else image
