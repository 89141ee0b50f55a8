"""Which columns of Parquet files of embeddings hold what: as named, else guessed by the layouts that exist."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rsir_core.errors import ArchiveError

if TYPE_CHECKING:
    import pyarrow as pa

AUTO: Final = "auto"  # in place of the vectors' column: guess it
NONE: Final = "none"  # in place of a column: use none
ROLES: Final = ("id", "uri", "geometry", "time")
# Those of Clay (v0, v1.5), Earth Index (Earth Genome) and Major TOM, all of which TorchGeo reads, and of this project.
# Clay v0's `index` is left out: it is unique within one file only.
GUESSES: Final[Mapping[str, tuple[str, ...]]] = {
    "vector": ("embedding", "embeddings", "vector", "vectors"),
    "id": ("image_id", "id", "unique_id", "chips_id", "chip_id", "tile_id"),
    "uri": ("uri", "source_url", "image_uri", "image_url", "url", "href"),
    "geometry": ("geometry", "geom"),
    "time": ("time", "datetime", "timestamp", "date"),
}


class VectorColumns(NamedTuple):
    """Name the columns that are read; None: there is none.

    Attributes:
        vector: lists of numbers.
        id: unique in all files; None: rows are numbered by file.
        uri: of the image that was described.
        geometry: WKB.
        time: of acquisition.
        crs: of the geometry, as rasterio takes it; None: longitude and latitude.
    """

    vector: str
    id: str | None
    uri: str | None
    geometry: str | None
    time: str | None
    crs: str | None = None

    @property
    def names(self) -> list[str]:
        """List the columns to read, each once."""
        return list(dict.fromkeys(name for name in self[:5] if name is not None))

    def __str__(self) -> str:
        """Say which column is what."""
        named = zip(("vectors", *ROLES), self[:5], strict=True)
        return ", ".join(f"{role}: {name or ('numbered' if role == 'id' else 'none')}" for role, name in named)


def parse_columns(text: str | None) -> dict[str, str]:
    """Parse `id=NAME,uri=NAME,geometry=NAME,time=NAME`, of which any may be left out.

    Raises:
        ValueError: another form, or another role.
    """
    found = {}
    for part in (text or "").split(",") if text else ():
        role, mark, name = part.partition("=")
        if role not in ROLES or not mark or not name:
            raise ValueError(f"{part!r} is not one of {', '.join(f'{known}=COLUMN' for known in ROLES)}")
        found[role] = name
    return found


def choose_columns(schema: "pa.Schema", vector: str, named: Mapping[str, str], place: str) -> VectorColumns:
    """Choose the columns of a file: those that are named, else by `GUESSES`.

    Args:
        schema: of the file, with its metadata.
        vector: name of the vectors' column, or `AUTO`.
        named: names of others by role; `NONE`: use none.
        place: of the file, for messages.

    Raises:
        ArchiveError: a named column is missing or of another type; no column of vectors; an unknown encoding or CRS.
    """
    geo = _geo(schema)
    chosen: dict[str, str | None] = {"vector": None if vector == AUTO else vector}
    chosen |= {role: None if name == NONE else name for role, name in named.items()}
    for role in ("vector", *ROLES):
        name = chosen.get(role)
        if name is not None and (name not in schema.names or not _suits(role, schema.field(name).type)):
            kind = f"of type {schema.field(name).type}" if name in schema.names else "missing"
            raise ArchiveError(f"{place}: the column {name!r} ({role}) is {kind}; it has {_listed(schema)}")
        if role not in named and name is None:
            guesses = (geo.get("primary_column"), *GUESSES[role]) if role == "geometry" else GUESSES[role]
            chosen[role] = next((g for g in guesses if g in schema.names and _suits(role, schema.field(g).type)), None)
    if (found := chosen.pop("vector")) is None:
        raise ArchiveError(f"{place} has no column of vectors that is known; name it by --vectors: {_listed(schema)}")
    return VectorColumns(found, **chosen, crs=_crs(geo, chosen["geometry"], place))


def _suits(role: str, kind: "pa.DataType") -> bool:
    """Tell whether a column's type can play a role."""
    import pyarrow as pa  # noqa: PLC0415 -- options are read without it

    types: Any = pa.types
    is_text: bool = types.is_string(kind) or types.is_large_string(kind)
    match role:
        case "vector":
            is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
            return bool(is_list and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)))
        case "id":
            return is_text or bool(types.is_integer(kind))
        case "uri":
            return is_text
        case "geometry":
            return bool(types.is_binary(kind) or types.is_large_binary(kind))
        case _:
            return is_text or bool(types.is_date(kind) or types.is_timestamp(kind))


def _listed(schema: "pa.Schema") -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _geo(schema: "pa.Schema") -> dict[str, Any]:
    """Return the metadata of GeoParquet; empty: it is none."""
    try:
        found = json.loads((schema.metadata or {}).get(b"geo", b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _crs(geo: Mapping[str, Any], column: str | None, place: str) -> str | None:
    """Return the reference system of a geometry column; None: longitude and latitude."""
    about = geo.get("columns", {}).get(column, {})
    if about.get("encoding", "WKB") != "WKB":
        raise ArchiveError(
            f"{place}: the geometry {column} is encoded as {about['encoding']}; write it as WKB, or pass "
            "--columns geometry=none"
        )
    crs = about.get("crs")
    if not isinstance(crs, dict):  # absent: as GeoParquet defines it; null: unknown, and checked to be degrees
        return None
    code = crs.get("id") or {}
    if str(code.get("code")) in ("CRS84", "4326"):
        return None
    return f"{code['authority']}:{code['code']}" if {"authority", "code"} <= code.keys() else json.dumps(crs)
