"""Archives with odd links, names, times, longitudes and catalogue items, as users have sent them."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import fsspec
import httpx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rsir_core import schemas
from rsir_core.archive.hrefs import href_of
from rsir_core.archive.items import ItemSelection
from rsir_core.archive.listing import list_images, root_of
from rsir_core.archive.stac import item_of, list_items
from rsir_core.errors import ArchiveError
from rsir_core.geo.acquisition_time import time_in
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.storage.filesystem import links_of
from rsir_core.storage.reading import read_file
from tests.support.serving import copy_of, local_app, publish, serving

NAMES = ("hash#1.jpg", "what?.jpg", "100%.jpg", "a%20b.jpg", "a b.jpg", "two\nlines.jpg", "a::b.jpg", "ü&=+,;'.jpg")


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (10, 200, 30)).save(file, "JPEG")


# Links


@pytest.mark.parametrize("name", ["notes", "picture.jpg"])
def test_a_link_that_leads_to_itself_ends_no_listing(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / name).symlink_to(name)
    (tmp_path / "there").symlink_to("back")
    (tmp_path / "back").symlink_to("there")
    found = [file.image_id for file in list_images(str(tmp_path))]
    assert found == (["a.jpg"] if name == "notes" else ["a.jpg", "picture.jpg"])  # the latter: to fail when it is read


@pytest.mark.parametrize("name", ["link", "link.jpg"])
@pytest.mark.parametrize("below", ["", "deep"])
def test_a_folder_that_may_not_be_read_counts_only_where_it_is_the_archive_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, below: str
) -> None:
    archive, closed = tmp_path / "archive", tmp_path / "elsewhere" / below
    picture(archive / "a.jpg")
    (closed / "inside").mkdir(parents=True)
    (archive / name).symlink_to(tmp_path / "elsewhere")
    (archive / "own").mkdir()
    refused, scan = {f"{archive / name / below}".rstrip("/")}, os.scandir

    def refusing(folder: str) -> Any:
        if folder in refused:
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)  # tests run as root, who may read everything
    assert [file.image_id for file in list_images(str(archive))] == ["a.jpg"]
    refused.add(str(archive / "own"))  # left out, its images would count as gone
    with pytest.raises(ArchiveError, match="access is denied"):
        list(list_images(str(archive)))


# Names


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_listed_read_and_named_by_a_uri(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "archive" / name)
    (file,) = list_images(str(tmp_path / "archive"))
    assert (file.image_id, read_file(file.uri, 10_000)[:2]) == (name, b"\xff\xd8")
    assert root_of(file.uri, file.image_id) == root_of(f"{tmp_path}/archive/x", "x")
    href = href_of(file.uri)
    assert not set(href) & set("#? \n") and unquote(href) == file.uri
    collection = tmp_path / "answer.json"
    found = item_of({"image_id": name, "uri": file.uri, "geometry": None, "bbox": None, "time": None})
    collection.write_text(json.dumps({"type": "FeatureCollection", "features": [found]}))
    (listed,) = list_items(str(collection), ItemSelection())
    assert listed.uri == file.uri


@pytest.fixture(scope="module")
def named(index: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder of files with odd names, and the URL of an endpoint over an index of them."""
    folder = tmp_path_factory.mktemp("named")
    changing = copy_of(index, folder / "index")
    rows = changing.features().slice(0, 1)
    table = pa.concat_tables([rows] * len(NAMES))
    for name in NAMES:
        picture(folder / name)
    ids, uris = [f"folder/{name}" for name in NAMES], [str(folder / name) for name in NAMES]
    for column, values in ((schemas.IMAGE_ID, ids), (schemas.URI, uris)):
        place = table.schema.get_field_index(column)
        table = table.set_column(place, table.schema.field(column), [values])
    publish(changing, table)
    with serving(local_app(changing.uri)) as url:
        yield folder, url


@pytest.mark.parametrize("name", NAMES)
def test_any_name_has_a_thumbnail(named: tuple[Path, str], name: str) -> None:
    folder, url = named
    answer = httpx.get(f"{url}/thumbnail/folder/{quote(name, safe='')}", timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    asked = {"image_id": f"folder/{name}", "k": len(NAMES), "distance": "plain"}
    found = httpx.post(f"{url}/search", json=asked, headers={"Accept": "application/geo+json"}, timeout=60).json()
    (feature,) = [one for one in found["features"] if one["id"] == f"folder/{name}"]
    assert unquote(feature["assets"]["image"]["href"]) == str(folder / name)


def test_a_name_that_was_written_unencoded_is_found_before_its_decoded_form(tmp_path: Path) -> None:
    """Encoded as URIs are, a name is decoded; a file of just that name comes first."""
    for name, there in (("hash#1.jpg", "hash#1.jpg"), ("a%20b.jpg", "a b.jpg"), ("a%20c.jpg", "a%20c.jpg")):
        picture(tmp_path / there)
        item: dict[str, Any] = {"type": "Feature", "stac_version": "1.0.0", "id": "x", "geometry": None, "links": [],
                "properties": {"datetime": "2024-05-06T07:08:09Z"},
                "assets": {"image": {"href": f"./{name}", "roles": ["data"]}}}  # fmt: skip
        (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
        (listed,) = list_items(str(tmp_path / "items.json"), ItemSelection())
        assert listed.uri == str(tmp_path / there) and listed.size > 0


def test_two_colons_in_a_key_are_no_chain_of_stores() -> None:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pipe_file("/bucket/a::b.jpg", b"pixels")
    (file,) = list_images("memory://bucket")
    assert read_file(file.uri, 100) == b"pixels"
    for uri in ("s3://b/a::b.jpg", "/data/a::b.jpg", "a.jpg"):
        assert links_of(uri) == [uri]
    assert links_of("zip://a.jpg::s3://b/c.zip") == ["zip://a.jpg", "s3://b/c.zip"]
    assert links_of("zip://a.jpg::/data/c.zip") == ["zip://a.jpg", "/data/c.zip"]


# Times

TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2099, 12, 31))


@given(TIMES, st.sampled_from(["%Y%m%d%H%M%S", "%Y%m%dT%H%M%S", "%Y-%m-%d_%H-%M-%S", "%Y%m%dT%H%M%SZ"]))
def test_a_time_in_a_name_is_read(time: datetime, form: str) -> None:
    wanted = time.replace(microsecond=0, tzinfo=UTC)
    written = wanted.strftime(form)
    for name in (f"{written}.jpg", f"DJI_{written}_0001_D.jpg", f"WV02_{written}_1030010041F6B700.jpg"):
        assert time_in(f"/archive/20010101/{name}") == wanted


@given(TIMES)
def test_a_time_without_seconds_is_read(time: datetime) -> None:
    wanted = time.replace(second=0, microsecond=0, tzinfo=UTC)
    assert time_in(f"MOD_{wanted:%Y%m%dT%H%MZ}.tif") == wanted


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("12345678901234.jpg", None),
        ("20239912153012.jpg", None),  # the 99th month
        ("20230712153012345.jpg", None),  # a longer number
        ("tile_20230712_1530.jpg", datetime(2023, 7, 12, tzinfo=UTC)),  # four digits alone are some other number
    ],
)
def test_digits_that_are_no_time(name: str, time: datetime | None) -> None:
    assert time_in(name) == time


# Items


def collection(tmp_path: Path, *features: Any) -> str:
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(file)


def feature(name: str, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "bbox": bbox, "links": [],
            "properties": {"datetime": "2024-05-06T07:08:09Z"},
            "assets": {"visual": {"href": "./x.tif", "type": "image/tiff"}}, **more}  # fmt: skip


@pytest.mark.parametrize(
    ("bbox", "found"),
    [
        (BoundingBox(179.1, -17.7, 179.95, -17.0), {"spec", "minus", "plus"}),
        (BoundingBox(-179.9, -17.7, -179, -17), {"spec", "minus", "plus"}),
        (BoundingBox(179.8, -17.7, -179.9, -17), {"spec", "minus", "plus"}),
        (BoundingBox(0, -17.7, 170, -17), set()),
        (BoundingBox(-178, -17.7, 0, -17), set()),
    ],
)
def test_items_around_fiji_are_found_however_their_longitudes_go_on(
    tmp_path: Path, bbox: BoundingBox, found: set[str]
) -> None:
    boxes = {"spec": [179.0, -18.4, -178.5, -16.3], "minus": [-180.67, -18.39, -178.55, -16.3],
             "plus": [179.0, -18.4, 181.5, -16.3]}  # fmt: skip
    archive = collection(tmp_path, *(feature(name, box) for name, box in boxes.items()))
    try:
        listed = {Path(file.image_id).stem for file in list_items(archive, ItemSelection(bbox=bbox))}
    except ArchiveError as error:
        assert "no item that is wanted" in str(error)
        listed = set()
    assert listed == found


@pytest.mark.parametrize("bbox", [[9, 48], [9, 100, 10, 101], [900, 48, 901, 49], [9, 49, 10, 48]])
def test_a_bbox_that_is_none_is_named_with_its_item(tmp_path: Path, bbox: list[float]) -> None:
    archive = collection(tmp_path, feature("odd", bbox))
    with pytest.raises(ArchiveError, match=r"item odd has the bbox \["):
        list(list_items(archive, ItemSelection(bbox=BoundingBox(0, 0, 20, 60))))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (feature("bad", [9, 48, 10, 49], properties={}), "items.json: item 'bad'"),
        (None, "items.json: feature 2"),
        ({"id": 7}, "items.json: item 7"),
        ("text", "items.json: feature 2"),
    ],
)
def test_a_broken_item_of_a_collection_is_named(tmp_path: Path, bad: Any, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        list(list_items(collection(tmp_path, feature("good", [9, 48, 10, 49]), bad), ItemSelection()))


def test_of_several_images_of_one_role_none_is_taken_by_chance(tmp_path: Path) -> None:
    assets = {
        name: {"href": f"./{name}.tif", "type": "image/tiff", "roles": ["data"]} for name in ("B02", "B03", "B04")
    }
    archive = collection(tmp_path, feature("s2", [9, 48, 10, 49], assets=assets))
    with pytest.raises(ArchiveError, match=r"\bs2\b.*B02, B03, B04.*--asset"):
        list(list_items(archive, ItemSelection()))
    (file,) = list_items(archive, ItemSelection(asset="B03"))
    assert file.uri.endswith("B03.tif")
    seen = {**assets, "overview": {"href": "./o.jpg", "type": "image/jpeg", "roles": ["visual"]}}
    (file,) = list_items(collection(tmp_path, feature("s2", [9, 48, 10, 49], assets=seen)), ItemSelection())
    assert file.uri.endswith("o.jpg")
