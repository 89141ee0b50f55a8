"""Read stac-geoparquet, a table of STAC items, piece by piece."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pystac
from pystac.utils import datetime_to_str, str_to_datetime

from rsir_core.archive.items import ItemSelection
from rsir_core.errors import ArchiveError
from rsir_core.storage.filesystem import file_system

ROWS: Final = 1_000  # that are made into Python objects at once
_TIMES: Final = ("datetime", "start_datetime", "end_datetime")
_COLUMNS: Final = ("id", "collection", "bbox", *_TIMES, "updated", "assets")


def parquet_items(uri: str, wanted: ItemSelection) -> Iterator[pystac.Item]:
    """Yield the items of a stac-geoparquet file, or of a folder of such, with what is needed of them.

    One row group is held at a time; those that cannot have a wanted item are not read.

    Raises:
        ArchiveError: the table has no items.
    """
    fs, path = file_system(uri)
    table = ds.dataset(path, filesystem=fs, format="parquet", exclude_invalid_files=fs.isdir(path))
    names = set(table.schema.names)
    if not {"id", "assets"} <= names:
        what = (
            "has no columns id and assets, so it is no stac-geoparquet; of embeddings, give their column by --vectors"
        )
        raise ArchiveError(f"{uri} {what}")
    columns = [name for name in _COLUMNS if name in names]
    chosen = _filter(table.schema, wanted)
    for file in table.get_fragments(chosen):
        for group in file.split_by_row_group(chosen):  # one by one: a scan of the file would hold many of them
            for batch in group.to_batches(table.schema, columns=columns, filter=chosen, batch_size=ROWS):
                yield from map(_item, batch.to_pylist())


def _filter(schema: pa.Schema, wanted: ItemSelection) -> pc.Expression | None:
    """Express what can be told from single columns; `ItemSelection.takes` decides the rest."""
    found: list[pc.Expression] = []
    if wanted.collections is not None and "collection" in schema.names:
        found.append(ds.field("collection").isin(list(wanted.collections)))
    if "datetime" in schema.names and "start_datetime" not in schema.names:
        kind = schema.field("datetime").type
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            found += [ds.field("datetime") >= pa.scalar(wanted.start, kind)] if wanted.start else []
            found += [ds.field("datetime") <= pa.scalar(wanted.end, kind)] if wanted.end else []
    if wanted.bbox is not None and "bbox" in schema.names and pa.types.is_struct(schema.field("bbox").type):
        south, north = ds.field("bbox", "ymin"), ds.field("bbox", "ymax")  # not longitudes, which go round
        found.append((south <= wanted.bbox.north) & (north >= wanted.bbox.south))
    if not found:
        return None
    both = found[0]
    for expression in found[1:]:
        both &= expression
    return both


def _item(row: dict[str, Any]) -> pystac.Item:
    bbox = row.get("bbox")
    if isinstance(bbox, dict):
        bbox = [bbox[edge] for edge in ("xmin", "ymin", "xmax", "ymax")]
    times = {name: value for name in (*_TIMES, "updated") if (value := row.get(name)) is not None}
    taken = times.pop("datetime", None)
    properties = {name: value if isinstance(value, str) else datetime_to_str(value) for name, value in times.items()}
    item = pystac.Item(row["id"], None, bbox, _time(taken), properties, collection=row.get("collection"))
    for key, asset in dict(row["assets"] or {}).items():
        if asset is not None:  # the columns are those of all items
            item.add_asset(key, pystac.Asset.from_dict(_without_nulls(asset)))
    return item


def _time(value: datetime | str | None) -> datetime | None:
    return str_to_datetime(value) if isinstance(value, str) else value


def _without_nulls(value: Any) -> Any:
    """Remove the fields that only other items have."""
    if isinstance(value, dict):
        return {name: _without_nulls(of) for name, of in value.items() if of is not None}
    return [_without_nulls(of) for of in value] if isinstance(value, list) else value
