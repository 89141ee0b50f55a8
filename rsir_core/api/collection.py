"""A named collection of an index: which label its images have, read and changed from Python."""

import getpass
import os
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from rsir_core import schemas
from rsir_core.api.hit import Hit
from rsir_core.archive.labels import labels_to_csv
from rsir_core.errors import LabelError, QueryError
from rsir_core.export.formats import export_rows
from rsir_core.export.rows import labelled_rows, training_pairs
from rsir_core.index.index import Index
from rsir_core.index.labels import check_names, read_labels, save_labels
from rsir_core.learning.archive_scores import learn, read_scorer
from rsir_core.learning.scorer import Scorer
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.query import Descriptor, ImageName
from rsir_core.retrieval.scored_rows import Order, ScoredQuery, merge_scored
from rsir_core.storage.filesystem import put_file

Image = str | Hit  # an indexed image, by its id or URI, or as a result


class Collection:
    """Read and change the labels of a collection; others may do so at the same time, and every change is kept.

    Args:
        index: where the labels are kept.
        name: 1 to 64 characters; the first label begins a new collection.
        rows: returns the indexed rows.

    Raises:
        QueryError: the name is not allowed.
    """

    def __init__(self, index: Index, name: str, rows: Callable[[], PartitionSearch]) -> None:
        check_names(name, {})
        self._index, self.name, self._rows = index, name, rows

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
        save_labels(self._index, self.name, by_id, uris, by or _user())

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
        export_rows(labelled_rows(labels, self._rows().rows_of(labels[schemas.IMAGE_ID].to_pylist())), os.fspath(path))

    def learn(self, positive: str = "good") -> Scorer:
        """Fit a scorer to the labels, and keep it with the collection, where the endpoint finds it.

        Args:
            positive: label of the images to find; those of all other labels are not.

        Raises:
            LabelError: too few labels, or all alike.
            ReadOnlyError: the index may not be written to.
        """
        return learn(self._index, self.name, positive)

    def scorer(self) -> Scorer | None:
        """Return the scorer that is kept with the collection; None: nobody has learned from it."""
        return read_scorer(self._index, self.name)

    def scored(self, k: int = 20, *, order: Order = "best", threshold: float = 0.0, labelled: bool = True) -> pa.Table:
        """Return images by the probability that the scorer gives them; reads all stored embeddings the first time.

        Args:
            k: number of images, at most.
            order: best first, or uncertain: those nearest to 0.5 first, which are worth most when they are labelled.
            threshold: least score.
            labelled: whether labelled images are among them.

        Returns:
            Their rows, with `score`; `rsir_core.export.formats.export_rows` writes them as a file.

        Raises:
            LabelError: nobody has learned from the collection, or the index was described by another model since.
        """
        scorer = self.scorer()
        if scorer is None:
            raise LabelError(f"nobody has learned from the collection {self.name!r} yet; call learn()")
        left_out = () if labelled else tuple(self.labels())
        page = self._rows().scored(ScoredQuery(scorer, order, threshold, k, left_out))
        return merge_scored([page], order, 0, k).rows

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the labels as CSV with the columns `uri,label`, which `jobs.finetune_classifier --labels` takes.

        Images have the URIs that the index has now; those that are no longer in it are left out.

        Raises:
            StorageError: it cannot be written.
        """
        labels = self.to_arrow()
        pairs = training_pairs(labels, self._rows().rows_of(labels[schemas.IMAGE_ID].to_pylist()))
        put_file(os.fspath(path), labels_to_csv(pairs).encode())

    def _find(self, name: str) -> Descriptor:
        """Find the indexed image of an id or a URI."""
        for by in (ImageName("image_id", name), ImageName("uri", name)):
            if (found := self._rows().as_indexed(by)) is not None:
                return found
        raise QueryError(f"{name} is no image of {self._index.uri}, by its id or URI; name one that is", "unknown")


def _user() -> str | None:
    """Return the name of the user of this process; None: it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def _name_of(image: Image) -> str:
    return image.image_id if isinstance(image, Hit) else image
