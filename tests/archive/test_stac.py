"""STAC documents as archives: what pystac writes is listed, on any store; and results that pystac reads."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pystac
import pytest
import shapely
from shapely.geometry import mapping

from jobs.indexing.options import IndexConfig
from rsir_core.archive.items import ItemSelection
from rsir_core.archive.listing import ImageFile
from rsir_core.archive.stac import CONCURRENT_ITEMS, ITEMS_AHEAD, item_of, list_items
from rsir_core.errors import ArchiveError, ConfigError
from rsir_core.geo.bounding_box import BoundingBox

LATE = datetime(2024, 1, 15, 10, tzinfo=UTC)
EARLY = datetime(2023, 7, 12, tzinfo=UTC)


def item(name: str, time: datetime | None, west: float, assets: dict[str, pystac.Asset], **more: Any) -> pystac.Item:
    place = mapping(shapely.box(west, 40, west + 1, 41))
    properties = more.pop("properties", {})
    return pystac.Item(name, place, [west, 40, west + 1, 41], time, properties, assets=assets, **more)


def image(href: str, *roles: str, **extra: Any) -> pystac.Asset:
    return pystac.Asset(href, media_type=pystac.MediaType.COG, roles=list(roles), extra_fields=extra)


@pytest.fixture
def catalogue(tmp_path: Path) -> str:
    """A catalogue with a collection of two items, with assets beside them, and an item of its own."""
    top = pystac.Catalog("top", "of everything")
    extent = pystac.Extent(pystac.SpatialExtent([-180, -90, 180, 90]), pystac.TemporalExtent([None, None]))
    collection = pystac.Collection("s2", "scenes", extent)
    top.add_child(collection)
    thumbnail = pystac.Asset("./t.png", media_type="image/png", roles=["thumbnail"])
    collection.add_item(item("a", LATE, 10, {"thumbnail": thumbnail, "visual": image("./a.tif", updated="v1")}))
    collection.add_item(item("b", EARLY, 179.5, {"thumbnail": thumbnail, "B04": image("./b.tif", "data")}))
    span = {"start_datetime": "2020-01-01T00:00:00Z", "end_datetime": "2020-12-31T00:00:00Z"}
    top.add_item(item("c", None, -5, {"only": image("./c.jp2", **{"file:checksum": "abc", "file:size": 7})},
                      properties=span))  # fmt: skip
    top.normalize_and_save(str(tmp_path / "stac"), pystac.CatalogType.SELF_CONTAINED)
    (tmp_path / "stac/s2/b/b.tif").write_bytes(b"pixels")
    return str(tmp_path / "stac/catalog.json")


def ids(catalogue: str, **wanted: Any) -> list[str]:
    try:
        return sorted(file.image_id for file in list_items(catalogue, ItemSelection(**wanted)))
    except ArchiveError as error:
        assert "no item that is wanted" in str(error)
        return []


def test_a_static_catalogue_is_listed(catalogue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(catalogue).parent
    found = {file.image_id: file for file in list_items(catalogue, ItemSelection())}
    assert found["s2/a.tif"] == ImageFile("s2/a.tif", str(folder / "s2/a/a.tif"), f"v1@{LATE}", -1, LATE)
    assert found["c.jp2"][1:4] == (str(folder / "c/c.jp2"), "abc@2020-01-01 00:00:00+00:00", 7)
    monkeypatch.chdir(folder)
    assert {file.image_id: file for file in list_items("catalog.json", ItemSelection())} == found
    b = found["s2/b.tif"]
    assert (b.uri, b.size, b.time) == (str(folder / "s2/b/b.tif"), 6, EARLY) and len(found) == 3
    Path(b.uri).write_bytes(b"changed")
    assert {file.etag for file in list_items(catalogue, ItemSelection(collections=("s2",)))} != {b.etag, f"v1@{LATE}"}


def test_an_item_counts_once_whatever_links_to_it(catalogue: str) -> None:
    folder = Path(catalogue).parent
    for document, links in {
        folder / "catalog.json": [("item", "./s2/a/a.json")],
        folder / "s2/collection.json": [("child", "../catalog.json"), ("child", "./collection.json")],
    }.items():
        found = json.loads(document.read_text())
        found["links"] += [{"rel": rel, "href": href, "type": "application/json"} for rel, href in links]
        document.write_text(json.dumps(found))
    assert ids(catalogue) == ["c.jp2", "s2/a.tif", "s2/b.tif"]


def test_what_a_store_says_is_asked_whatever_a_file_is_called(tmp_path: Path) -> None:
    (tmp_path / "visual").write_bytes(b"pixels")
    collection = pystac.ItemCollection([item("one", LATE, 1, {"visual": image("./visual")})])
    collection.save_object(str(tmp_path / "items.json"))
    (file,) = list_items(str(tmp_path / "items.json"), ItemSelection())
    (tmp_path / "visual").write_bytes(b"other pixels")
    (changed,) = list_items(str(tmp_path / "items.json"), ItemSelection())
    assert (file.size, changed.size) == (6, 12) and file.etag != changed.etag


def test_few_items_are_held(catalogue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr("rsir_core.archive.stac._listed", lambda source, *_: read.append(source))
    sources = (str(i) for i in range(10_000))
    monkeypatch.setattr("rsir_core.archive.stac._items", lambda *_: sources)
    with pytest.raises(ArchiveError, match="no item that is wanted"):
        list(list_items(catalogue, ItemSelection()))
    assert read.index("9999") >= 10_000 - ITEMS_AHEAD - CONCURRENT_ITEMS  # in their order, or nearly


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"links": [{"rel": "next", "href": "https://host/items?page=2"}]}, "one page of several"),
        ({"bbox": [1]}, "item one has the bbox"),
        ({"file:size": None}, ""),
    ],
)
def test_odd_item_collections(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    found = item("one", LATE, 1, {"visual": image("./a.tif", updated="v1")}).to_dict()
    document = {"type": "FeatureCollection", "features": [found]}
    match next(iter(change)):
        case "links":
            document |= change
        case "bbox":
            found |= change
        case _:
            found["assets"]["visual"] |= change
    (tmp_path / "items.json").write_text(json.dumps(document))
    wanted = ItemSelection(bbox=BoundingBox(0, 0, 90, 90))
    if words:
        with pytest.raises(ArchiveError, match=words):
            list(list_items(str(tmp_path / "items.json"), wanted))
    else:
        assert [file.size for file in list_items(str(tmp_path / "items.json"), wanted)] == [-1]


def test_items_are_chosen(catalogue: str) -> None:
    assert ids(catalogue, collections=("s2",)) == ["s2/a.tif", "s2/b.tif"]
    assert ids(catalogue, start=LATE) == ["s2/a.tif"] and ids(catalogue, end=EARLY) == ["c.jp2", "s2/b.tif"]
    assert ids(catalogue, start=datetime(2020, 6, 1, tzinfo=UTC), end=datetime(2020, 7, 1, tzinfo=UTC)) == ["c.jp2"]
    assert ids(catalogue, bbox=BoundingBox(10.5, 40.5, 20, 50)) == ["s2/a.tif"]
    assert ids(catalogue, bbox=BoundingBox(179, 0, -179, 50)) == ["s2/b.tif"]
    assert ids(catalogue, bbox=BoundingBox(0, 0, 1, 1)) == []
    assert ids(catalogue, collections=("s2",), start=LATE, asset="visual") == ["s2/a.tif"]


def test_bounds_on_either_side_of_the_antimeridian_meet_there() -> None:
    at = item("a", LATE, 179, {})  # to 180°
    assert all(ItemSelection(bbox=BoundingBox(-180, 0, east, 50)).takes(at) for east in (-170, 180))
    assert not ItemSelection(bbox=BoundingBox(-179, 0, -170, 50)).takes(at)


def test_an_item_collection_on_a_store_is_listed() -> None:
    items = [item("a", LATE, 10, {"visual": image("a.tif", updated="1")}), item("b", LATE, 10, {"x": image(
        "https://example.org/b.tif?signature=1", updated="2")})]  # fmt: skip
    document = json.dumps(pystac.ItemCollection(items).to_dict())
    with fsspec.open("memory://stac/items.json", "w") as file:
        file.write(document)
    found = list(list_items("memory://stac/items.json", ItemSelection()))
    assert [(f.image_id, f.uri) for f in found] == [
        ("a.tif", "memory://stac/a.tif"), ("b.tif", "https://example.org/b.tif?signature=1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("assets", "words"),
    [
        ({"a": image("a.tif"), "b": image("b.tif")}, "2 images \\(a, b\\); choose with --asset"),
        ({"meta": pystac.Asset("m.xml")}, "meta"),
        ({"visual": image("file:///etc/passwd.tif", updated="1")}, "local file file:///etc/passwd.tif"),
        ({"visual": image("simplecache::file:///etc/a.tif", updated="1")}, "local file simplecache::file:///etc/a.tif"),
    ],
)
def test_assets_that_cannot_be_chosen(assets: dict[str, pystac.Asset], words: str) -> None:
    with fsspec.open("memory://stac/odd.json", "w") as file:
        file.write(json.dumps(pystac.ItemCollection([item("a", LATE, 10, assets)]).to_dict()))
    with pytest.raises(ArchiveError, match=words):
        list(list_items("memory://stac/odd.json", ItemSelection()))


def test_what_is_no_catalogue(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"type": "Catalog"')
    (tmp_path / "twice.json").write_text(
        json.dumps(pystac.ItemCollection([item("a", LATE, 1, {"x": image("a.tif", updated="1")})] * 2).to_dict())
    )
    for name, words in (("broken", "cannot be read as STAC"), ("twice", "two items"), ("gone", "FileNotFound")):
        with pytest.raises(ArchiveError, match=words):
            list(list_items(str(tmp_path / f"{name}.json"), ItemSelection()))


@pytest.mark.parametrize("options", [{"start": "soon"}, {"bbox": "1,2,3"}, {"bbox": "a,b,c,d"}])
def test_options_of_catalogues(options: dict[str, str]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=f"--{name} {value}"):
        IndexConfig(archive="x.json", models="m", index="i", **options)
    with pytest.raises(ConfigError, match=r"catalogues.*folder"):
        IndexConfig(archive="folder", models="m", index="i", collections="landsat")
    assert IndexConfig(archive="folder", models="m", index="i").item_selection is None
    given = IndexConfig(archive="x.json", models="m", index="i", start="2024-01-15", bbox="1,2,3,4").item_selection
    assert given == ItemSelection(start=datetime(2024, 1, 15, tzinfo=UTC), bbox=BoundingBox(1, 2, 3, 4))


def test_results_are_items() -> None:
    place = mapping(shapely.box(10, 40, 11, 41))
    bbox = {"xmin": 10, "ymin": 40, "xmax": 11, "ymax": 41}
    row = {"image_id": "a.tif#xywh=0,0,9,9", "uri": "s3://b/a.tif#xywh=0,0,9,9", "class": "beach", "rank": 1}
    dated = item_of({**row, "time": "2024-01-15T10:00:00+00:00", "geometry": place, "bbox": bbox})
    plain = item_of({**row, "time": None, "geometry": None, "bbox": None})
    one, other = pystac.ItemCollection.from_dict({"type": "FeatureCollection", "features": [dated, plain]})
    assert one.datetime == LATE and one.bbox == [10, 40, 11, 41] and one.properties["rsir:class"] == "beach"
    assert one.assets["image"].href == row["uri"] and other.geometry is None and other.datetime is None


def test_the_endpoint_answers_with_items(client: httpx.Client, stored: list[dict[str, Any]]) -> None:
    asked = {"image_id": stored[0]["image_id"], "k": 3}
    answer = client.post("/search", json=asked, headers={"Accept": "application/geo+json"})
    assert answer.headers["content-type"] == "application/geo+json"
    found = list(pystac.ItemCollection.from_dict(answer.json()))
    plain = client.post("/search", json=asked).json()["results"]
    assert [one.id for one in found] == [result["image_id"] for result in plain]
    assert found[1].properties["rsir:weighted_distance"] == plain[1]["weighted_distance"]
