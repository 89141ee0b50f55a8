"""Write rows of an index as a file for GIS and tables: CSV, GeoJSON, GeoPackage or GeoParquet."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import shapely

from rsir_core import schemas
from rsir_core.errors import ConfigError
from rsir_core.geo.bounding_box import BoundingBox, arcs
from rsir_core.index.index import Index
from rsir_core.index.layout import GEO
from rsir_core.storage.filesystem import writing

Format = Literal["csv", "geojson", "gpkg", "parquet"]  # each is its files' suffix, too
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
MEDIA_TYPES: Final[dict[Format, str]] = {
    "csv": "text/csv",
    "geojson": "application/geo+json",
    "gpkg": "application/geopackage+sqlite3",
    "parquet": "application/vnd.apache.parquet",
}
DRIVERS: Final[dict[Format, str]] = {"geojson": "GeoJSON", "gpkg": "GPKG"}  # GDAL's
DEGREES: Final = "EPSG:4326"


def format_of(path: str) -> Format:
    """Find the format that a file's name ends in.

    Raises:
        ConfigError: it is none of them.
    """
    suffix = path.rpartition(".")[2].lower()
    for known in FORMATS:
        if suffix == known:
            return known
    raise ConfigError(f"{path}: its name says no format; end it in .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}")


def export_rows(rows: pa.Table, uri: str) -> None:
    """Write rows as a file, whose format its name says; it appears when it is complete.

    Args:
        rows: see `write_file`.
        uri: path or URI of the file.

    Raises:
        ConfigError: the name says no format.
        StorageError: it cannot be written.
    """
    kind = format_of(uri)
    with tempfile.TemporaryDirectory() as folder, writing(uri) as file:
        path = Path(folder) / f"rows.{kind}"
        write_file(rows, path, kind)
        with path.open("rb") as written:
            shutil.copyfileobj(written, file)


def export_index(index: Index, version: int, uri: str) -> None:
    """Write the rows of a version as one GeoParquet file, which appears when it is complete.

    Raises:
        StorageError: it cannot be written.
    """
    with writing(uri) as file, pq.ParquetWriter(file, schemas.FEATURES, compression="zstd") as writer:
        for part in index.feature_files(version):
            writer.write_table(index.read_features(part)[0])
        writer.add_key_value_metadata({"geo": json.dumps(GEO)})


def write_file(rows: pa.Table, path: Path, kind: Format) -> None:
    """Write rows as a local file.

    Footprints are in degrees of longitude and latitude (EPSG:4326); a row with a bounding box alone gets that. Fields
    of structs become columns such as `region_x`, but in GeoParquet, which has the index's columns. In CSV the footprint
    is WKT.

    Args:
        rows: with the columns `bbox` and `geometry` of `schemas.FEATURES`, and any others of simple types or structs.
        path: of the file, which must not exist.
        kind: of the file.
    """
    place = rows.schema.get_field_index(schemas.GEOMETRY)
    footprints = _footprints(rows)
    if kind == "csv":
        text = pa.array(shapely.to_wkt(footprints).tolist(), pa.string())
        pyarrow.csv.write_csv(_flat(rows.set_column(place, schemas.GEOMETRY, text)), path)
        return
    outlines = pa.array(shapely.to_wkb(footprints).tolist(), pa.binary())
    rows = rows.set_column(place, schemas.GEOMETRY, outlines)
    if kind == "parquet":
        pq.write_table(rows.replace_schema_metadata({"geo": json.dumps(GEO)}), path, compression="zstd")
        return
    import pyogrio  # noqa: PLC0415 -- brings a GDAL of its own

    names = {"geometry_name": schemas.GEOMETRY, "geometry_type": "Unknown", "crs": DEGREES}
    options = {"layer": "rows"} if kind == "gpkg" else {"RFC7946": "YES"}
    pyogrio.write_arrow(_flat(rows), path, driver=DRIVERS[kind], **names, **options)


def _footprints(rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """Return the footprint of each row, (n,); None: it is nowhere."""
    footprints = shapely.from_wkb(np.array(rows[schemas.GEOMETRY].to_pylist(), object))
    boxes = rows[schemas.BBOX].to_pylist()
    for i in np.flatnonzero(shapely.is_missing(footprints)):
        if (box := boxes[i]) is not None:
            bounds = BoundingBox(*(box[edge] for edge in schemas.BBOX_FIELDS))
            spans = [(west, east) for west, east in arcs(bounds) if west < east]
            boxes_of = [shapely.box(west, bounds.south, east, bounds.north) for west, east in spans]
            footprints[i] = boxes_of[0] if len(boxes_of) == 1 else shapely.multipolygons(boxes_of)
    found: np.ndarray[tuple[int], np.dtype[np.object_]] = footprints
    return found


def _flat(rows: pa.Table) -> pa.Table:
    """Replace each struct by a column for each of its fields."""
    while any(pa.types.is_struct(field.type) for field in rows.schema):
        structs = {field.name for field in rows.schema if pa.types.is_struct(field.type)}
        flat = rows.flatten()
        names = [name if "." not in name or name.partition(".")[0] not in structs else name.replace(".", "_", 1)
                 for name in flat.column_names]  # fmt: skip
        rows = flat.rename_columns(names)
    return rows
