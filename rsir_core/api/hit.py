"""One result of a search, with typed fields."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

import shapely
from shapely.geometry.base import BaseGeometry

from rsir_core import schemas
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.models.regions import Box, DetectedObject, Region
from rsir_core.retrieval.query import Likeness

FOOTPRINT: Final = "footprint"  # of hits: the outline, which rows call geometry


@dataclass(frozen=True)
class Hit:
    """Hold one result of a search; its weighted distance is the product of the other three (paper eq. 6 to 8).

    Attributes:
        rank: 1 is the best.
        image_id: path of the image below the archive's root.
        uri: where the image lies.
        class_name: its most probable class.
        probability: of that class, 0 to 1.
        weighted_distance: what the order by distance `weighted` is by (see `SearchHits.ranked_by`).
        distance: Euclidean distance of the features.
        query_weight: 1 − probability that the query is of this image's class (eq. 6), at least
            `SearchHits.least_weight`.
        candidate_weight: 1 − probability that this image is of the query's class (eq. 7), at least as much.
        region: the region that was found, in pixels: the key region, or the one around an object.
        region_number: 0: the key region; 1, …: of the image's objects, the most confident first.
        object: the object that it is centred on; None: none was found.
        height: of the image, in pixels.
        width: of the image, in pixels.
        time: of acquisition; None: unknown.
        bbox: bounds of the footprint, in degrees; None: not georeferenced.
        footprint: outline in degrees of longitude and latitude; None: not georeferenced.
        crs: of the file, EPSG:… or WKT; None: not georeferenced.
        window: of a tile, where in its scene it lies, in pixels; None: a whole image.
        cell: quadkey of the cell of the global grid that it is; None: it is none.
        covered: share of that cell that has data; None: it is none.
        same_picture: of near duplicates, what the pixels say; None: they were not compared.
    """

    rank: int
    image_id: str
    uri: str
    class_name: str
    probability: float
    weighted_distance: float
    distance: float
    query_weight: float
    candidate_weight: float
    region: Region
    region_number: int
    object: DetectedObject | None
    height: int
    width: int
    time: datetime | None
    bbox: BoundingBox | None
    footprint: BaseGeometry | None
    crs: str | None
    window: Region | None
    cell: str | None
    covered: float | None
    same_picture: Likeness | None

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """Build from a row of `SearchHits.to_arrow`."""
        box, bbox, window, outline = row[schemas.OBJECT_BOX], row[schemas.BBOX], row[schemas.WINDOW], row[FOOTPRINT]
        found = box and DetectedObject(Box(**box), row[schemas.OBJECT_SCORE], row[schemas.OBJECT_CLASS])
        same = ("rank", "image_id", "uri", "probability", "weighted_distance", "distance", "query_weight",
                "candidate_weight", "region_number", "height", "width", "time", "crs", "cell", "covered",
                "same_picture")  # fmt: skip
        return cls(
            **{name: row[name] for name in same},
            class_name=row[schemas.CLASS],
            region=Region(**row[schemas.REGION]),
            object=found,
            bbox=bbox and BoundingBox(*(bbox[edge] for edge in schemas.BBOX_FIELDS)),
            footprint=outline and shapely.from_wkb(outline),
            window=window and Region(**window),
        )
