"""A table of items, as the stac-geoparquet specification lays it out, lists what the same item collection does."""

import json
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import shapely

from rsir_core.archive import stac_geoparquet
from rsir_core.archive.items import ItemSelection
from rsir_core.archive.kinds import BandChoice
from rsir_core.archive.stac import list_items
from rsir_core.errors import ArchiveError
from rsir_core.geo.bounding_box import BoundingBox
from tests.archive.test_stac_api import START, documents


def table_of(items: list[dict[str, Any]]) -> pa.Table:
    """Properties are columns, the geometry is WKB, and the assets' columns are those of all items."""
    rows = []
    for item in items:
        edges = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, item["bbox"]), strict=True))
        properties = {**item["properties"], "datetime": datetime.fromisoformat(item["properties"]["datetime"])}
        geometry = shapely.to_wkb(shapely.box(*item["bbox"]))
        rows.append({**{k: item[k] for k in ("type", "stac_version", "id", "collection", "links")}, **properties,
                     "geometry": geometry, "bbox": edges, "assets": item["assets"]})  # fmt: skip
    return pa.Table.from_pylist(rows)


@pytest.fixture
def items() -> list[dict[str, Any]]:
    found = documents()
    for item in found[:3]:  # bands apart, which the others do not have
        item["assets"] = {
            name: {"href": f"https://example.org/{item['id']}_{band}.tif", "type": "image/tiff", "roles": ["data"],
                   "eo:bands": [{"name": band, "common_name": name}]}
            for name, band in (("red", "B4"), ("green", "B3"), ("blue", "B2"))
        }  # fmt: skip
    return found


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"start": START + timedelta(days=20), "end": START + timedelta(days=22)},
        {"bbox": BoundingBox(3, 0, 5.2, 50)},
        {"bbox": BoundingBox(3, 41.5, 5.2, 50)},
        {"collections": ("landsat",)},
        {"max_items": 4},
    ],
)
def test_a_table_lists_what_its_items_do(tmp_path: Path, items: list[dict[str, Any]], wanted: dict[str, Any]) -> None:
    pystac.ItemCollection([pystac.Item.from_dict(i) for i in items[3:]]).save_object(str(tmp_path / "items.json"))
    pq.write_table(table_of(items[3:]), tmp_path / "items.parquet", row_group_size=7)
    expected, found = (listed(f"{tmp_path}/items.{kind}", wanted) for kind in ("json", "parquet"))
    assert found == expected and isinstance(found, str) == ("bbox" in wanted and wanted["bbox"].south > 41)


def listed(uri: str, wanted: dict[str, Any]) -> Any:
    try:
        return list(list_items(uri, ItemSelection(**wanted)))
    except ArchiveError as error:
        return str(error).partition(" ")[2]


def test_bands_of_a_table(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    pq.write_table(table_of(items[:3]), tmp_path / "items.parquet")
    wanted = ItemSelection(bands=BandChoice(("red", "green", "blue")))
    found = list(list_items(str(tmp_path / "items.parquet"), wanted))
    assert [file.uri for file in found] == [f"https://example.org/i0{n}_{{band}}.tif#band=B4,B3,B2" for n in range(3)]


def test_a_folder_on_a_store(items: list[dict[str, Any]]) -> None:
    for n, part in enumerate((items[3:10], items[10:])):
        with fsspec.open(f"memory://catalogue/items.parquet/part-{n}.parquet", "wb") as file:
            pq.write_table(table_of(part), file)
    assert len(list(list_items("memory://catalogue/items.parquet", ItemSelection()))) == len(items) - 3


def test_what_is_no_table_of_items(tmp_path: Path) -> None:
    pq.write_table(pa.table({"embedding": [[1.0]]}), tmp_path / "x.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name, words in (("x", "no stac-geoparquet"), ("broken", "cannot be read"), ("gone", "FileNotFound")):
        with pytest.raises(ArchiveError, match=words):
            list(list_items(str(tmp_path / f"{name}.parquet"), ItemSelection()))


@pytest.mark.slow
def test_many_items_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a large table are never all held: not before its first item is given out, and not after."""
    one = table_of(documents()[3:4])
    file, groups, rows = tmp_path / "items.parquet", 20, 2_000
    with pq.ParquetWriter(file, one.schema) as writer:
        for group in range(groups):
            ids = pa.array([f"{group}-{n}" for n in range(rows)])
            piece = pa.concat_tables([one] * rows)
            writer.write_table(piece.set_column(piece.schema.get_field_index("id"), "id", ids))
    held: list[int] = []
    plain = stac_geoparquet._item

    def counted(row: dict[str, Any]) -> pystac.Item:
        held.append(pa.total_allocated_bytes())
        return plain(row)

    monkeypatch.setattr(stac_geoparquet, "_item", counted)
    before = pa.total_allocated_bytes()
    count = sum(1 for _ in stac_geoparquet.parquet_items(str(file), ItemSelection()))
    assert count == groups * rows
    assert max(held) - before < pq.read_table(file).nbytes / 4


def test_a_table_that_another_program_wrote(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    rustac = shutil.which("rustac", path=Path(sys.executable).parent)
    if rustac is None:
        pytest.skip("rustac is not installed")
    document = {"type": "FeatureCollection", "features": items[3:], "links": []}
    (tmp_path / "items.json").write_text(json.dumps(document))
    subprocess.run([rustac, "translate", "items.json", "items.parquet"], cwd=tmp_path, check=True, timeout=60)
    assert listed(f"{tmp_path}/items.parquet", {}) == listed(f"{tmp_path}/items.json", {})
