"""From a query's pixels to what it is ranked by: the same code, bundle and PCA that made the index's rows."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from rsir_core.arrays import Floats
from rsir_core.errors import ImageError, QueryError
from rsir_core.imagery.decode import decode, read_picture
from rsir_core.imagery.picture import Picture, shrink
from rsir_core.index.index import Index
from rsir_core.models.head import Head
from rsir_core.models.regions import GIVEN, Box, BoxRole, DetectedObject, DrawnBox, object_region
from rsir_core.retrieval.near_duplicates import kinds_of, read_here
from rsir_core.retrieval.query import Descriptor, Likeness
from rsir_core.retrieval.served_version import ServedVersion

if TYPE_CHECKING:
    from rsir_core.models.describe import Describer

PREVIEW_SIDE: Final = 512
# The box itself, the key region around an object that is known, or around the one that the detector finds.
_Way = Literal["box", "key region", "detect"]


class QueryDescriber:
    """Describe queries exactly as the rows of a version were described.

    Attributes:
        has_backbone: whether pictures can be described, see `no_backbone`.
    """

    def __init__(self, served: ServedVersion, max_pixels: int, device: str = "cpu") -> None:
        from rsir_core.models.describe import Describer  # noqa: PLC0415 -- brings torch, which thumbnails do not need

        index = Index(served.index)
        bundle = index.bundle(served.bundle)
        self.has_backbone = served.has_backbone
        self._uri = served.index
        self._model = Describer(bundle, device) if self.has_backbone else None
        self._head = Head.of(bundle.classifier, bundle.classifier_state)
        self._pca = index.pca(served.pca)
        self._max_pixels = max_pixels

    @property
    def _describer(self) -> "Describer":
        """Return the model that describes pictures.

        Raises:
            QueryError: there is none.
        """
        if self._model is None:
            raise no_backbone(self._uri)
        return self._model

    def read(self, source: bytes | str, drawn: DrawnBox | None) -> Picture:
        """Read the picture in an upload (bytes) or behind the URI of an indexed image.

        Raises:
            ImageError: it cannot become a picture.
            QueryError: the box is empty or reaches outside the picture; or no picture can be described.
        """
        if not self.has_backbone:
            raise no_backbone(self._uri)
        picture = self._read(source)
        if drawn is not None:
            check_box(picture, drawn)
        return picture

    def compare(self, source: bytes | str, uris: list[str]) -> list[Likeness | None]:
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
        self, pictures: list[Picture], boxes: list[DrawnBox | None], shown: list[bool] | None = None
    ) -> list[Descriptor]:
        """Describe pictures, one descriptor each.

        Args:
            pictures: what to describe.
            boxes: each, where there is one, is described by itself with its surroundings (see `object_region`), or
                stands for the detector's representative object, on which the key region is centred.
            shown: of which all objects are wanted; None: of none.
        """
        known = self._known(pictures, boxes, shown or [False] * len(pictures))
        found: dict[int, Descriptor] = {}
        for way in get_args(_Way):
            chosen = [i for i, ways in enumerate(map(_way, boxes, known)) if ways == way]
            described = self._describe([pictures[i] for i in chosen], [known[i] or [] for i in chosen], way)
            found |= zip(chosen, described, strict=True)
        return [found[i] for i in range(len(pictures))]

    def of_vector(self, vector: Sequence[float] | Floats) -> Descriptor:
        """Return what an embedding (D,) is ranked by: one as the rows' were, before the PCA.

        Raises:
            QueryError: it has another length, is zero or is not finite.
        """
        with np.errstate(over="ignore"):
            embedding = np.asarray(vector, np.float32)
        dimensions = self._head.weight.shape[1]
        if embedding.shape != (dimensions,):
            raise QueryError(f"vector: {len(embedding)} numbers; the embeddings of this index have {dimensions}")
        if not np.isfinite(embedding).all() or not embedding.any():
            raise QueryError("vector: it is zero, or has numbers that are not finite; give the embedding of an image")
        feature, p = self._pca.transform(embedding[None])[0], self._head.probabilities(embedding[None])[0]
        if not (np.isfinite(feature).all() and np.isfinite(p).all()):
            raise QueryError("vector: its numbers are too large; give the embedding of an image")
        return Descriptor(None, None, feature, p, needs_average=self._pca.neighbours > 0)

    def _read(self, source: bytes | str) -> Picture:
        if isinstance(source, bytes):
            return decode(source, "the upload", self._max_pixels)
        return read_picture(source, self._max_pixels)

    def _known(
        self, pictures: list[Picture], boxes: list[DrawnBox | None], shown: list[bool]
    ) -> list[list[DetectedObject] | None]:
        """Find the objects of each picture, the representative one first; None: left to the describer."""
        known = [None if drawn is None else [DetectedObject(drawn.box, 1.0, GIVEN)] for drawn in boxes]
        wanted = [i for i, show in enumerate(shown) if show]
        for i, objects in zip(wanted, self._describer.all_objects([pictures[i].pixels for i in wanted]), strict=True):
            known[i] = [*(known[i] or []), *objects]
        return known

    def _describe(self, pictures: list[Picture], known: list[list[DetectedObject]], way: _Way) -> list[Descriptor]:
        """Describe pictures in one way; `known` are their objects, the representative one first."""
        if not pictures:
            return []
        images, boxes = [p.pixels for p in pictures], [objects[0].box if objects else None for objects in known]
        if way == "box":
            drawn = zip(images, filter(None, boxes), strict=True)
            regions = [object_region(image.shape[0], image.shape[1], box) for image, box in drawn]
            described = self._describer.describe_regions(images, regions)
        else:
            described = self._describer.describe(images, boxes if way == "key region" else None)
        feature = self._pca.transform(described.embedding)
        return [
            Descriptor(
                None, None, feature[i], described.class_probabilities[i], described.regions[i],
                tuple(known[i] or filter(None, [described.objects[i]])),
                picture.pixels.shape[0], picture.pixels.shape[1], picture.notes,
                needs_average=self._pca.neighbours > 0,
            )
            for i, picture in enumerate(pictures)
        ]  # fmt: skip


def no_backbone(index: str) -> QueryError:
    """Build the error that says why an index describes no image."""
    return QueryError(
        f"{index} was made of embeddings without the model that made them, so it cannot describe an image; ask with an "
        "image of the index (image_id or uri), or with an embedding by the same model (vector)"
    )


def _way(drawn: DrawnBox | None, known: list[DetectedObject] | None) -> _Way:
    """Say how a picture is described; the describer takes boxes for all of its images or for none."""
    if drawn is not None and drawn.is_object:
        return "box"
    return "detect" if known is None else "key region"


def drawn_box(box: Sequence[float], role: BoxRole, regions: int) -> DrawnBox:
    """Build a box from what a program gives; see `DrawnBox.of`.

    Raises:
        QueryError: it has not four edges, or the role is unknown.
    """
    if role not in (roles := get_args(BoxRole)):
        raise QueryError(f"box_as: {role!r}; give one of {', '.join(roles)}")
    try:
        return DrawnBox.of(Box(*box), role, regions)
    except TypeError as error:
        raise QueryError(f"the box {box!r} has not four edges; give x0, y0, x1, y1") from error


def check_box(picture: Picture, drawn: DrawnBox) -> None:
    """Check that a box lies inside a picture.

    Raises:
        QueryError: it is empty or reaches outside.
    """
    (height, width), box = picture.pixels.shape[:2], drawn.box
    if not (0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height):
        raise QueryError(
            f"the box {list(box)} is empty or reaches outside the image of {width}×{height} pixels; "
            "give x0, y0, x1, y1 inside it"
        )


def with_preview(descriptor: Descriptor, picture: Picture) -> Descriptor:
    """Add a picture of what was described, for browsers that cannot show the file itself, or not as it was read."""
    return replace(descriptor, preview=shrink(picture, PREVIEW_SIDE))
