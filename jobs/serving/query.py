"""From a query's pixels to what it is ranked by: the same code, bundle and PCA that made the index's rows."""

import io
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from rsir_core.errors import ImageError, QueryError, TableError
from rsir_core.imagery.decode import Picture, decode, read_picture
from rsir_core.index.index import Index
from rsir_core.index.no_match import NoMatch, get_no_match
from rsir_core.models.describe import GIVEN, Describer
from rsir_core.models.detector import DetectedObject
from rsir_core.models.regions import Box, Region
from rsir_core.retrieval.near_duplicates import Kind, kinds_of, read_here
from rsir_core.retrieval.partition import widths
from rsir_core.search.exact import CONFIDENT
from rsir_core.search.filters import EVERYTHING, Filter

PREVIEW_SIDE: Final = 512
THUMBNAIL_SIDE: Final = 256
FEW: Final = 100  # rows, whose JSON takes a few milliseconds

DistanceName = Literal["weighted", "plain", "auto"]  # auto: weighted for a query whose class is sure, else plain


@dataclass(frozen=True)
class ServedVersion:
    """The version of an index that is served, and the models that its rows were made with."""

    index: str
    version: int
    images: int
    bundle: str
    pca: str
    classes: tuple[str, ...]
    dimensions: int
    has_detector: bool
    tau: float
    no_match: NoMatch | None = None  # None: the index was published without, by an earlier version


def open_version(uri: str, version: int | None = None) -> ServedVersion:
    """Open a version of an index (default: the newest), after checking that all that serving it needs is there.

    Raises:
        TableError, BundleError: see `edition_of`; or a PCA or weights are missing or damaged.
    """
    index, edition = Index(uri), edition_of(uri, version)
    index.bundle(edition.bundle)  # here, rather than when the endpoint is half up
    index.pca(edition.pca)
    return edition


def edition_of(uri: str, version: int | None = None) -> ServedVersion:
    """Open a version of an index (default: the newest) that somebody else has checked to be whole.

    Raises:
        TableError: no index, no such version, no rows, or rows of more than one bundle or PCA.
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
    settings, (dimensions, _) = index.bundle_settings(bundle), widths(index, files[0])
    return ServedVersion(
        uri, version, sum(file.row_count for file in files), bundle, pca,
        settings.classes, dimensions, settings.detector is not None, settings.tau,
        get_no_match(index, version, bundle, pca),
    )  # fmt: skip


@dataclass(frozen=True)
class Ranking:
    """Say which rows are ranked, and which of the best are wanted."""

    k: int
    offset: int = 0  # better ones to leave out
    filter: Filter = EVERYTHING
    near_duplicates: bool = False  # by the plain distance, and none that is farther than re-encoding takes an image
    distance: DistanceName = "weighted"

    @property
    def first(self) -> int:
        """Count the best rows that hold all rows that are wanted."""
        return self.offset + self.k

    @property
    def is_light(self) -> bool:
        """Tell whether a ranking is cheap to answer with others: few rows, and no column of all rows is read for it."""
        return self.first <= FEW and self.filter == EVERYTHING

    def is_weighted(self, query: "Descriptor") -> bool:
        """Tell whether that query is ranked by the weighted distance."""
        if self.near_duplicates or self.distance == "plain":
            return False
        return self.distance == "weighted" or bool(query.class_probabilities.max() >= CONFIDENT)


@dataclass(frozen=True)
class Descriptor:
    """Hold what an image is ranked by, and how that was made.

    Attributes:
        image_id: of an indexed image; None: an upload.
        uri: of an indexed image.
        feature: (K,) float32.
        class_probabilities: (C,) float32.
        region: its key region; None, as height and width: nothing was read.
        objects: those that are known, best first: all, where they were asked for, or the representative one.
        height: pixels.
        width: pixels.
        notes: what reading it had to decide.
        preview: JPEG of what was described; empty: not asked for.
    """

    image_id: str | None
    uri: str | None
    feature: npt.NDArray[np.float32]
    class_probabilities: npt.NDArray[np.float32]
    region: Region | None = None
    objects: tuple[DetectedObject, ...] = ()
    height: int | None = None
    width: int | None = None
    notes: str | None = None
    preview: bytes = b""

    @property
    def object(self) -> DetectedObject | None:
        """Return the representative object."""
        return self.objects[0] if self.objects else None


class Verdict(NamedTuple):
    """Say how a query was ranked, and whether anything like it was found."""

    weighted: bool
    no_match: bool | None  # None: nothing can be promised, or nothing was ranked
    false_match_rate: float | None  # of queries whose class the model knows and took no row for, the share with a match


def verdict_on(edition: ServedVersion, ranking: Ranking, query: Descriptor, nearest: float) -> Verdict:
    """Judge a query by the Euclidean distance of its nearest row; near duplicates are another question.

    Infinite is the distance where there is no row to be ranked.
    """
    weighted, known = ranking.is_weighted(query), edition.no_match
    if known is None or nearest == np.inf or ranking.near_duplicates:
        return Verdict(weighted, None, None)
    no_match = known.is_too_far(nearest)
    return Verdict(weighted, no_match, None if no_match is None else known.false_match_rate)


class QueryDescriber:
    """Describes queries exactly as the rows of an edition were described."""

    def __init__(self, edition: ServedVersion, max_pixels: int, device: str = "cpu") -> None:
        index = Index(edition.index)
        self._describer = Describer(index.bundle(edition.bundle), device)
        self._pca = index.pca(edition.pca)
        self._max_pixels = max_pixels

    def read(self, source: bytes | str, box: Box | None) -> Picture:
        """Read the picture in an upload (bytes) or behind the URI of an indexed image.

        Raises:
            ImageError: it cannot become a picture.
            QueryError: 422, the box is empty or reaches outside the picture.
        """
        picture = self._read(source)
        height, width = picture.pixels.shape[:2]
        if box is not None and not (0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height):
            raise QueryError(
                f"the box {list(box)} is empty or reaches outside the image of {width}×{height} pixels; "
                "give x0, y0, x1, y1 inside it"
            )
        return picture

    def compare(self, source: bytes | str, uris: list[str]) -> list[Kind | None]:
        """Compare the pictures of indexed images with that of an upload (bytes) or of one of them (its URI).

        None: one of the two cannot be read any more, or it is beyond the first that are looked at.

        Raises:
            ImageError: the upload cannot become a picture.
        """
        try:
            own = self._read(source)
        except ImageError:
            if isinstance(source, bytes):
                raise
            return [None] * len(uris)
        return kinds_of(own.pixels, uris, partial(read_here, max_pixels=self._max_pixels, readers=1))

    def describe(
        self, pictures: list[Picture], boxes: list[Box | None], shown: list[bool] | None = None
    ) -> list[Descriptor]:
        """Describe pictures, one descriptor each.

        Args:
            pictures: what to describe.
            boxes: each, where there is one, stands for the detector's representative object.
            shown: of which all objects are wanted; None: of none.
        """
        known = self._known(pictures, boxes, shown or [False] * len(pictures))
        found: dict[int, Descriptor] = {}
        for is_known in (False, True):  # the describer takes boxes for all of its images or for none
            chosen = [i for i, objects in enumerate(known) if (objects is not None) == is_known]
            found |= zip(chosen, self._describe([pictures[i] for i in chosen], [known[i] for i in chosen]), strict=True)
        return [found[i] for i in range(len(pictures))]

    def _read(self, source: bytes | str) -> Picture:
        if isinstance(source, bytes):
            return decode(source, "the upload", self._max_pixels)
        return read_picture(source, self._max_pixels)

    def _known(
        self, pictures: list[Picture], boxes: list[Box | None], shown: list[bool]
    ) -> list[list[DetectedObject] | None]:
        """Find the objects of each picture, the representative one first; None: left to the describer."""
        known = [None if box is None else [DetectedObject(box, 1.0, GIVEN)] for box in boxes]
        wanted = [i for i, show in enumerate(shown) if show]
        for i, objects in zip(wanted, self._describer.all_objects([pictures[i].pixels for i in wanted]), strict=True):
            known[i] = [*(known[i] or []), *objects]
        return known

    def _describe(self, pictures: list[Picture], known: list[list[DetectedObject] | None]) -> list[Descriptor]:
        """Describe pictures whose objects are known, or of none of which they are."""
        if not pictures:
            return []
        boxes = None if known[0] is None else [objects[0].box if objects else None for objects in known]
        described = self._describer.describe([p.pixels for p in pictures], boxes)
        feature = self._pca.transform(described.embedding)
        return [
            Descriptor(
                None, None, feature[i], described.class_probabilities[i], described.regions[i],
                tuple(known[i] or filter(None, [described.objects[i]])),
                picture.pixels.shape[0], picture.pixels.shape[1], picture.notes,
            )
            for i, picture in enumerate(pictures)
        ]  # fmt: skip


def refusal_of(error: ImageError) -> QueryError:
    """Convert the failure of an image to the answer that a query with it gets."""
    other = 502 if error.is_refused else 422  # the store's failure is not the client's
    return QueryError(str(error), {"too_large": 413, "unsupported": 415, "missing": 404}.get(error.kind, other))


def with_preview(descriptor: Descriptor, picture: Picture) -> Descriptor:
    """Add a picture of what was described, for browsers that cannot show the file itself, or not as it was read."""
    return replace(descriptor, preview=shrink(picture, PREVIEW_SIDE))


def shrink(picture: Picture, side: int) -> bytes:
    """Encode the picture as a JPEG of at most side × side pixels; a smaller one keeps its size."""
    image = Image.fromarray(picture.pixels)
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
