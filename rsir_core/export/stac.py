"""Write the embeddings of an index as GeoParquet, described by the STAC embedding extension (a proposal, v0.0.1)."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rsir_core import schemas
from rsir_core.errors import TableError
from rsir_core.geo.bounding_box import BoundingBox, arcs
from rsir_core.index.diff import semi
from rsir_core.index.embedding_files import by_file, stored_keys, stored_rows
from rsir_core.index.index import Index
from rsir_core.index.layout import GEO, KEY, bundle_uri
from rsir_core.models.settings import BundleSettings
from rsir_core.storage.filesystem import put_file, writing

EXTENSION: Final = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
STAC: Final = "1.0.0"  # the version that the extension's schema asks for
PARQUET: Final = "application/vnd.apache.parquet"
NAMES: Final = ("embeddings.parquet", "item.json", "collection.json")  # the last is written last
ROW_GROUP: Final = 8192  # rows: 40 MB of embeddings of 1,280
PART: Final = 1_000_000  # keys that are held at once
Span = tuple[str | None, str | None]  # first and last acquisition
EXPORTED: Final = pa.schema(
    [
        schemas.EMBEDDINGS.field(name)
        for name in (
            schemas.IMAGE_ID, schemas.URI, schemas.TIME, schemas.BBOX, schemas.GEOMETRY, schemas.EMBEDDING,
        )
    ]
)  # fmt: skip


def export_stac(index: Index, version: int, folder: str, source: str, licence: str) -> None:
    """Write all published embeddings as one GeoParquet file, with a STAC item and its collection.

    Holds some thousands of rows at a time, and the keys of all.

    Args:
        index: the index.
        version: of `features`, whose images are written.
        folder: URI of the folder to write `NAMES` to.
        source: URI of the imagery, to which the collection links.
        licence: SPDX identifier, `proprietary` or `various`.

    Raises:
        StorageError: the folder cannot be written to.
        TableError: an embedding of the version is gone; then nothing is written.
    """
    folder = folder.rstrip("/")
    rows = index.features(version, [*KEY, schemas.BUNDLE, schemas.TIME, schemas.BBOX])
    stored = semi(stored_keys(index), rows.select(KEY))
    if (missing := len(rows) - len(stored)) > 0:
        raise TableError(
            f"the embeddings of {missing:,} of {len(rows):,} images of version {version} are gone, as --compact "
            "removes those of images that are no longer published; export a newer version"
        )
    dimensions = 0
    with writing(f"{folder}/{NAMES[0]}") as file, pq.ParquetWriter(file, EXPORTED, compression="zstd") as writer:
        for piece in _pieces(index, stored):
            dimensions = dimensions or len(piece[schemas.EMBEDDING][0])
            writer.write_table(piece)
        writer.add_key_value_metadata({"geo": json.dumps(GEO)})
    settings = index.bundle_settings(rows[schemas.BUNDLE][0].as_py())
    place, times = _bounds(rows), _times(rows)
    name = f"rsir-{settings.fingerprint}-{version}"
    item = _item(name, settings, place, times)
    collection = _collection(name, (place, times), dimensions, licence)
    collection["links"] += [
        {"rel": "emb:model", "href": f"{bundle_uri(index.uri)}/bundle.json", "type": "application/json"},
        {"rel": "emb:source-data", "href": source},
    ]
    for document, file_name in ((item, NAMES[1]), (collection, NAMES[2])):
        put_file(f"{folder}/{file_name}", json.dumps(document, indent=1, ensure_ascii=False).encode())


def _pieces(index: Index, stored: pa.Table) -> Iterator[pa.Table]:
    """Read stored embeddings, `ROW_GROUP` or a few more at a time; schema `EXPORTED`."""
    held: list[pa.Table] = []
    for part in by_file(stored, PART):
        for piece in stored_rows(index, part, EXPORTED.names):
            held.append(piece.cast(EXPORTED))
            if sum(map(len, held)) >= ROW_GROUP:
                yield pa.concat_tables(held)
                held = []
    if held:
        yield pa.concat_tables(held)


def _bounds(rows: pa.Table) -> BoundingBox | None:
    """Bound all footprints, without regard to the antimeridian; None: there are none."""
    found = rows[schemas.BBOX].drop_null().combine_chunks()
    if len(found) == 0:
        return None
    west, south, east, north = (pc.struct_field(found, name) for name in schemas.BBOX_FIELDS)
    if pc.any(pc.greater(west, east)).as_py():
        west, east = pa.array([-180.0]), pa.array([180.0])
    return BoundingBox(*(f(a).as_py() for f, a in ((pc.min, west), (pc.min, south), (pc.max, east), (pc.max, north))))


def _times(rows: pa.Table) -> Span:
    """Return the first and last acquisition, RFC 3339; None: no row has one."""
    found = pc.min_max(rows[schemas.TIME])
    first, last = (None if (t := found[end].as_py()) is None else _text(t) for end in ("min", "max"))
    return first, last


def _text(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _item(name: str, settings: BundleSettings, place: BoundingBox | None, times: Span) -> dict[str, Any]:
    """Describe the file."""
    now = _text(datetime.now(UTC))
    classifier = settings.classifier
    made: dict[str, Any] = {"bundle": settings.fingerprint, "backbone": classifier.backbone}
    rounded: dict[str, Any] = {}
    if settings.has_backbone:
        made |= {"image_size": classifier.image_size, "views": classifier.views, "tau": settings.tau}
        rounded = {"emb:quantization": {"method": "float16", "original_dtype": "float32", "quantized_dtype": "float16"}}
    return {
        "type": "Feature",
        "stac_version": STAC,
        "stac_extensions": [EXTENSION],
        "id": name,
        "collection": name,
        "geometry": None if place is None else _polygon(place),
        **({} if place is None else {"bbox": list(place)}),
        "properties": {
            "datetime": None,
            "start_datetime": times[0] or "0001-01-01T00:00:00Z",  # STAC wants some span
            "end_datetime": times[1] or now,
            "created": now,
            "emb:runtime_parameters": made,
            "emb:fit_for_use": ["retrieval"],
            **rounded,
        },
        "links": [
            {"rel": rel, "href": f"./{NAMES[2]}", "type": "application/json"} for rel in ("collection", "parent")
        ],
        "assets": {"embeddings": {"href": f"./{NAMES[0]}", "type": PARQUET, "roles": ["data"], "title": "Embeddings"}},
    }


def _polygon(place: BoundingBox) -> dict[str, Any]:
    ((west, east), *_) = arcs(place)
    corners = [(west, place.south), (east, place.south), (east, place.north), (west, place.north), (west, place.south)]
    return {"type": "Polygon", "coordinates": [[list(corner) for corner in corners]]}


def _collection(name: str, extent: tuple[BoundingBox | None, Span], dimensions: int, licence: str) -> dict[str, Any]:
    """Describe what the item belongs to."""
    place, times = extent
    return {
        "type": "Collection",
        "stac_version": STAC,
        "stac_extensions": [EXTENSION],
        "id": name,
        "description": "Embeddings of an index by rsir, one per image",
        "license": licence,
        "extent": {
            "spatial": {"bbox": [list(place or (-180.0, -90.0, 180.0, 90.0))]},
            "temporal": {"interval": [list(times)]},
        },
        "emb:type": "chip",
        "emb:dimensions": dimensions,
        "data_type": "float32",
        "emb:fit_for_use": ["retrieval"],
        "links": [{"rel": "item", "href": f"./{NAMES[1]}", "type": "application/geo+json"}],
        "item_assets": {"embeddings": {"type": PARQUET, "roles": ["data"], "title": "Embeddings"}},
    }
