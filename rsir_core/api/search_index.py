"""An index opened for searching in this process, without Ray and without a server."""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from rsir_core.api.collection import Collection
from rsir_core.api.hit import Hit
from rsir_core.api.hits import SearchHits
from rsir_core.api.once import Once
from rsir_core.api.pictures import FORMS, is_image_like, is_vector, read_image
from rsir_core.errors import QueryError
from rsir_core.export.formats import export_index
from rsir_core.imagery.picture import THUMBNAIL_SIDE, Picture, shrink
from rsir_core.imagery.rgb import MAX_PIXELS
from rsir_core.index.index import Index
from rsir_core.index.labels import read_collections
from rsir_core.models.regions import BoxRole, DrawnBox
from rsir_core.retrieval.describing import QueryDescriber, check_box, drawn_box, no_backbone
from rsir_core.retrieval.near_duplicates import with_kinds
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.query import Descriptor, ImageName, Ranking
from rsir_core.retrieval.same_place import at_its_place, by_time
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.filter_options import in_words
from rsir_core.search.ranking_options import DistanceName, RankingOptions, RegionsName

if TYPE_CHECKING:
    from rsir_core.api.pictures import ImageLike
    from rsir_core.api.scoring import RetrievalScores
    from rsir_core.arrays import Floats

TOGETHER: Final = 16  # images that are read and described at once


class SearchIndex:
    """Search a version of an index; any number of threads may share one.

    The rows lie in memory after the first search: 4·(K + C) + 24 bytes each, see `Partition`. The models and torch are
    loaded when the first image has to be described.

    Args:
        served: the version.
        device: that describes images.
        max_pixels: per image, above which it is refused.
    """

    def __init__(self, served: ServedVersion, device: str = "cpu", max_pixels: int = MAX_PIXELS) -> None:
        self._served, self._max_pixels = served, max_pixels
        self._rows = Once(lambda: PartitionSearch(served))
        self._describer = Once(lambda: QueryDescriber(served, max_pixels, device))
        self._describing = threading.Lock()  # the detector remembers the shape of its last input

    @property
    def uri(self) -> str:
        """URI of the index."""
        return self._served.index

    @property
    def version(self) -> int:
        """Version that is searched."""
        return self._served.version

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of a descriptor's `class_probabilities`."""
        return self._served.classes

    def __len__(self) -> int:
        return self._served.images

    def __repr__(self) -> str:
        return f"<index {self.uri}, version {self.version}: {len(self)} images, {len(self.classes)} classes>"

    def search(  # noqa: PLR0913 -- each is one of the endpoint's fields
        self,
        query: "ImageLike | Descriptor | Hit | Sequence[float] | Floats",
        k: int = 20,
        *,
        box: Sequence[float] | None = None,
        box_as: BoxRole = "auto",
        classes: Sequence[str] | str | None = None,
        bbox: Sequence[float] | None = None,
        polygon: Sequence[Sequence[float]] | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        where: Sequence[tuple[str, str, Any]] = (),
        distance: DistanceName = "auto",
        near_duplicates: bool = False,
        max_distance: float | None = None,
        regions: RegionsName = "auto",
    ) -> SearchHits:
        """Rank the rows of the index for a query.

        Args:
            query: an image (path, URI, bytes of a file, PIL image, array of H×W×3 uint8), the id or URI of an indexed
                image, a hit of another search, a descriptor, or an embedding (D numbers, an array or a list) by the
                model that made the index's. A text is first looked for as a URI of the index, then as a file, then as
                an image id.
            k: number of results.
            box: x0, y0, x1, y1 in pixels: the object that is looked for, in place of the key region.
            box_as: what is described of a box: `object` (a square around it, with a margin, which finds single
                objects), `centre` (the key region that is centred on it, which finds scenes), or `auto` (object if the
                index has regions of objects, else centre).
            classes: only results of these classes.
            bbox: only footprints that meet west, south, east, north, in degrees.
            polygon: only footprints that meet the polygon of these corners, longitude and latitude each.
            start: only images taken then or later (a datetime, or ISO 8601).
            end: only images taken then or earlier.
            where: only rows for which all of these hold, (column, operator, value) each.
            distance: the order: `weighted` (paper eq. 8), `plain` (Euclidean), or `auto` (weighted if the
                classes fit the archive and the query's nearest rows are probably of its class, with weights of at
                least 0.1; else plain).
            near_duplicates: only images within Euclidean distance 0.2, of which the first 20 are compared by pixels.
            max_distance: only results up to this distance, of the one that ranks them.
            regions: which regions of the images are searched: `key`, `objects` (of an index made with `--regions`),
                `all`, or `auto` (all for a box that is described, else key). An image is found once, by its best.

        Raises:
            ImageError: the query cannot become a picture.
            QueryError: the query or a filter is not one that this index can answer.
        """
        asked = {"classes": classes, "bbox": bbox, "polygon": polygon, "start": start, "end": end, "where": where,
                 "k": k, "distance": distance, "near_duplicates": near_duplicates,
                 "max_distance": max_distance, "regions": regions}  # fmt: skip
        try:
            options = RankingOptions(**{name: _plain(value) for name, value in asked.items()})
        except ValidationError as error:
            raise in_words(error) from error
        drawn = None if box is None else drawn_box(box, box_as, self._served.regions)
        ranking = Ranking.of(options, self._served, drawn=drawn)
        rows = self._rows()
        allowed = rows.passing(ranking.filter)
        descriptor, picture = self._describe_query(query, drawn)
        ranked = rows.rank(descriptor, ranking, allowed)
        if ranking.near_duplicates:
            ranked = with_kinds(ranked, picture, self._max_pixels)
        return SearchHits(self._served, ranking, ranked, b"" if picture is None else shrink(picture, THUMBNAIL_SIDE))

    def same_place(self, tile: "str | os.PathLike[str] | Hit", k: int = 1000) -> SearchHits:
        """Return what all scenes show of a place, in order of time; their distances are to the tile that is given.

        Args:
            tile: an indexed tile of the global grid (`jobs.index --grid`): its image id or URI, or a hit.
            k: most results; where there are more, those nearest to the tile.

        Raises:
            QueryError: it is not in the index, or no cell of the global grid.
        """
        stored, rows = self._stored(tile), self._rows()
        if stored is None:
            raise QueryError(f"{tile} is no image of {self.uri}; give the image id or the URI of one", "unknown")
        ranking = at_its_place(Ranking(k), rows.rows_of([str(stored.image_id)]))
        ranked = rows.rank(stored, ranking, rows.passing(ranking.filter))
        return SearchHits(self._served, ranking, by_time(ranked))

    def describe(self, images: "ImageLike | Iterable[ImageLike]") -> list[Descriptor]:
        """Describe images as the rows of the index were described: class probabilities, feature, key region, objects.

        Args:
            images: one or several; each a path, URI, bytes of a file, PIL image or array of H×W×3 uint8.

        Raises:
            ImageError: one of them cannot become a picture.
            QueryError: one of them is no image.
        """
        if not self._served.has_backbone:
            raise no_backbone(self.uri)
        remaining = iter([images] if is_image_like(images) else images)
        described: list[Descriptor] = []
        while together := [read_image(image, self._max_pixels) for image in islice(remaining, TOGETHER)]:
            described += self._describe(together, [None] * len(together))
        return described

    def evaluate(
        self, labels: Mapping[str, str] | str | os.PathLike[str] | None = None, weighted: bool = True
    ) -> "RetrievalScores":
        """Score retrieval: each labelled image is a query once, ranked against all others; see `jobs.evaluate`.

        Args:
            labels: the label of each image, by its id or URI; or a CSV `uri,label,split`, whose `test` rows count;
                None: the folder of every image is its label.
            weighted: rank by the weighted distance, else by the Euclidean one.

        Raises:
            LabelError: no label for an image, no image for any label, or no two images of one label.
        """
        from rsir_core.api.scoring import COLUMNS, score  # noqa: PLC0415 -- brings the evaluation

        return score(Index(self.uri).features(self.version, COLUMNS), labels, weighted)

    def collections(self) -> list[str]:
        """List the names of the collections that have labels."""
        return [collection.name for collection in read_collections(Index(self.uri))]

    def collection(self, name: str) -> Collection:
        """Open a collection of labels, which need not have any yet.

        Raises:
            QueryError: the name is not allowed.
        """
        return Collection(Index(self.uri), name, self._rows)

    def to_geoparquet(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as one GeoParquet file: QGIS, GeoPandas and DuckDB read its footprints.

        Args:
            path: path or URI of the file, which appears when it is complete.

        Raises:
            StorageError: it cannot be written.
        """
        export_index(Index(self.uri), self.version, os.fspath(path))

    def to_stac(self, folder: str | os.PathLike[str], *, source: str, licence: str = "proprietary") -> None:
        """Write the embeddings, before the PCA, as GeoParquet with a STAC item and collection (embedding extension).

        Args:
            folder: path or URI of the folder: `embeddings.parquet`, `item.json`, `collection.json`.
            source: URI of the imagery, to which the collection links as `emb:source-data`.
            licence: of the embeddings: an SPDX identifier, `proprietary` or `various`.

        Raises:
            StorageError: it cannot be written.
        """
        from rsir_core.export.stac import export_stac  # noqa: PLC0415 -- who searches needs none of it

        export_stac(Index(self.uri), self.version, os.fspath(folder), source, licence)

    def _describe(self, pictures: list[Picture], boxes: list[DrawnBox | None]) -> list[Descriptor]:
        describer = self._describer()
        with self._describing:
            return describer.describe(pictures, boxes)

    def _describe_query(self, query: Any, box: DrawnBox | None) -> tuple[Descriptor, Picture | None]:
        """Return what a query is ranked by; and its picture, unless it is an indexed image as it is."""
        rows = self._rows()
        if isinstance(query, Descriptor):
            if box is not None:
                raise QueryError("box: a descriptor has no image to draw it on; give the image")
            query.check_fits(self._served)
            return rows.as_indexed(query) or query, None
        if is_vector(query):
            if box is not None:
                raise QueryError("box: an embedding has no image to draw it on; give the image")
            found = self._describer().of_vector(query)
            return rows.as_indexed(found) or found, None
        stored = self._stored(query)
        if stored is not None and box is None:
            return stored, None
        source = query if stored is None or stored.uri is None else stored.uri
        if not self._served.has_backbone:
            raise no_backbone(self.uri)
        if not is_image_like(source):
            raise QueryError(f"the query is of type {type(query).__name__}; give {FORMS}, an image id, or a descriptor")
        picture = read_image(source, self._max_pixels)
        if box is not None:
            check_box(picture, box)
        (found,) = self._describe([picture], [box])
        if stored is not None:  # another key region of an indexed image
            return replace(rows.averaged(found), image_id=stored.image_id, uri=stored.uri), picture
        return rows.as_indexed(found) or found, picture

    def _stored(self, query: Any) -> Descriptor | None:
        """Find the indexed image that a query names; None: it is not one, or a file of that name exists."""
        if isinstance(query, Hit):
            query = query.uri
        if not isinstance(query, (str, os.PathLike)):
            return None
        text, rows = os.fspath(query), self._rows()
        is_local = "://" not in text
        uri = os.path.abspath(text) if is_local else text  # noqa: PTH100 -- links stay, as in listings
        if (by_uri := rows.as_indexed(ImageName("uri", uri))) is not None:
            return by_uri
        if is_local and os.path.exists(text):  # noqa: PTH110 -- whatever the text is
            return None
        by_id = rows.as_indexed(ImageName("image_id", text))
        if by_id is None and is_local:
            raise QueryError(
                f"{text} is no file, and no image of {self.uri} by its id; give the path of one", "unknown"
            )
        return by_id


def _plain(value: Any) -> Any:
    """Convert an array or another sequence to what options are parsed from."""
    if isinstance(value, (str, datetime)) or not isinstance(value, Iterable):
        return value
    return [_plain(item) for item in value]
