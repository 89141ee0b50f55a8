"""A version of an index that queries are answered by."""

from dataclasses import dataclass

from rsir_core import schemas
from rsir_core.errors import TableError
from rsir_core.index.delta import TableFile
from rsir_core.index.index import Index
from rsir_core.index.no_match import NoMatchThreshold, get_no_match_threshold


@dataclass(frozen=True)
class ServedVersion:
    """Identify a version of an index, and the models that its rows were made with."""

    index: str
    version: int
    images: int
    bundle: str
    pca: str
    classes: tuple[str, ...]
    dimensions: int
    has_detector: bool
    tau: float
    no_match: NoMatchThreshold | None = None  # None: the index was published without, by an earlier version
    neighbours: int = 0  # nearest rows that each feature, and a query's, is averaged with
    has_backbone: bool = True  # False: somebody else made the embeddings, and no image can be described
    regions: int = 1  # of each image at most: the key region, and those of objects

    @property
    def classes_fit(self) -> bool:
        """Tell whether there are classes that mean something in this archive; where nobody measured it, they do."""
        return bool(self.classes) and (self.no_match is None or self.no_match.classes_fit)


def open_version(uri: str, version: int | None = None) -> ServedVersion:
    """Read a version of an index (default: the newest), after checking that the models' weights are there and whole.

    Raises:
        TableError, BundleError: see `read_version`; or the weights are missing or damaged.
    """
    found = read_version(uri, version)
    Index(uri).bundle_settings(found.bundle, check_weights=True)
    return found


def read_version(uri: str, version: int | None = None) -> ServedVersion:
    """Read a version of an index (default: the newest), but for the models' weights.

    Raises:
        TableError: no index, no such version, no rows, rows of more than one bundle or PCA, or the PCA is missing.
        BundleError: the index's own bundle is missing.
    """
    index = Index(uri)
    version = index.version() if version is None else version
    files = [file for file in index.feature_files(version) if file.row_count]
    if not files:
        raise TableError(f"the index {uri} (version {version}) has no rows; index some images with jobs.index first")
    models = index.models(version)
    if len(models) > 1:
        raise TableError(f"the rows of {uri} are of several models ({sorted(models)}); run jobs.index on it again")
    ((bundle, pca),) = models
    neighbours = index.pca(pca).neighbours
    settings, (dimensions, _) = index.bundle_settings(bundle), widths(index, files[0])
    return ServedVersion(
        uri, version, sum(file.row_count for file in files), bundle, pca,
        settings.classes, dimensions, settings.detector is not None, settings.tau,
        get_no_match_threshold(index, version, bundle, pca), neighbours, settings.has_backbone, settings.regions,
    )  # fmt: skip


def widths(index: Index, file: TableFile) -> tuple[int, int]:
    """Return K and C of a file that has rows."""
    one = index.first_row(file)
    dimensions, classes = (
        schemas.to_matrix(one[name]).shape[1] for name in (schemas.FEATURE, schemas.CLASS_PROBABILITIES)
    )
    return dimensions, classes
