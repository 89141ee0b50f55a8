"""A real STAC API is read page by page, with what is asked for, whatever it refuses at first."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pystac
import pytest
import shapely
from shapely.geometry import mapping

from jobs.indexing.options import IndexConfig
from rsir_core.archive import stac
from rsir_core.archive import stac_api as searching
from rsir_core.archive.items import ItemSelection
from rsir_core.archive.kinds import api_parts, kind_of
from rsir_core.archive.stac import list_items
from rsir_core.errors import ArchiveError, ConfigError
from rsir_core.geo.bounding_box import BoundingBox
from tests.support.stac_api import Served, stac_api

START = datetime(2024, 1, 1, 10, tzinfo=UTC)
COUNT = 25


def documents(host: str = "https://example.org") -> list[dict[str, Any]]:
    found = []
    for n in range(COUNT):
        box: Any = [n, 40, n + 0.5, 41]
        properties = {"eo:cloud_cover": n, "updated": "2024-02-01T00:00:00Z"}
        item = pystac.Item(f"i{n:02}", mapping(shapely.box(*box)), box, START + timedelta(days=n), properties)
        item.add_asset("visual", pystac.Asset(f"{host}/{n}.tif", media_type=pystac.MediaType.COG))
        found.append({**item.to_dict(), "collection": "s2" if n % 5 else "landsat"})
    return found


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(searching, "PAGE", 4)
    with stac_api(documents()) as served:
        yield served


def numbers(api: Served, path: str = "/search", **wanted: Any) -> list[int]:
    found = list_items(api.url + path, ItemSelection(**wanted))
    return sorted(int(file.uri.rpartition("/")[2].removesuffix(".tif")) for file in found)


def test_all_pages_are_read(api: Served) -> None:
    found = {file.image_id: file for file in list_items(f"{api.url}/search", ItemSelection())}
    assert len(found) == COUNT and found["landsat/i05.tif"].uri == "https://example.org/5.tif"
    assert found["s2/i01.tif"].time == START + timedelta(days=1)
    assert sum("/search?" in request for request in api.requests) == -(-COUNT // 4)


def test_what_is_asked_for_is_what_comes(api: Served) -> None:
    landsat = list(range(0, COUNT, 5))
    assert numbers(api, "/collections/landsat") == numbers(api, "/collections/landsat/items") == landsat
    assert numbers(api, collections=("landsat",)) == numbers(api, "/search?collections=landsat") == landsat
    assert numbers(api, bbox=BoundingBox(3, 0, 5.2, 50)) == numbers(api, "/search?bbox=3,0,5.2,50") == [3, 4, 5]
    assert numbers(api, start=START + timedelta(days=22)) == [22, 23, 24]
    assert numbers(api, start=START + timedelta(days=3), end=START + timedelta(days=4)) == [3, 4]
    assert numbers(api, cql2='"eo:cloud_cover" < 3') == [0, 1, 2]
    assert numbers(api, cql2='{"op": "<", "args": [{"property": "eo:cloud_cover"}, 6]}') == list(range(6))
    assert numbers(api, "/collections/landsat", cql2='"eo:cloud_cover" < 6', end=START) == [0]
    assert len(numbers(api, max_items=7)) == 7
    asked = [request for request in api.requests if "filter" in request or "bbox" in request or "datetime" in request]
    assert len(asked) >= 6  # by the API, not by us alone


@pytest.mark.slow
def test_a_busy_api_is_waited_for(api: Served) -> None:
    api.busy = 2
    assert len(numbers(api, cql2='{"op": "<", "args": [{"property": "eo:cloud_cover"}, 9]}')) == 9
    assert api.busy == 0


@pytest.mark.slow
def test_an_api_that_stays_busy_ends_the_listing(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_RETRIES", 1)
    monkeypatch.setattr(stac, "ITEMS_AHEAD", 2)
    files = list_items(f"{api.url}/search", ItemSelection())
    next(files)
    api.busy = 1000
    with pytest.raises(ArchiveError, match=r"cannot be searched as a STAC API.*429"):
        list(files)


def test_items_that_shift_between_pages_count_once(api: Served) -> None:
    files = list_items(f"{api.url}/search", ItemSelection())
    first = next(files)
    api.items.insert(0, {**api.items[0], "id": "newer"})
    assert len({first, *files}) == COUNT


@pytest.mark.parametrize(
    ("end", "wanted", "words"),
    [
        ("/collections/none", {}, "no item that is wanted"),
        ("/search?sortby=x", {}, "parameter sortby"),
        ("/search", {"cql2": "nothing like ("}, "cannot be searched"),
        ("/nowhere/search", {}, "cannot be searched"),
    ],
)
def test_searches_that_cannot_be(api: Served, end: str, wanted: dict[str, str], words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        list(list_items(api.url + end, ItemSelection(**wanted)))  # type: ignore[arg-type]


def test_a_file_on_this_machine_is_not_named_by_an_api(api: Served) -> None:
    api.items[0]["assets"]["visual"]["href"] = "file:///etc/passwd.tif"
    with pytest.raises(ArchiveError, match="a remote catalogue may not name one"):
        list(list_items(f"{api.url}/search", ItemSelection()))


@pytest.mark.parametrize(
    ("uri", "kind", "parts"),
    [
        ("https://h/stac/v1/search", "api", ("https://h/stac/v1", None)),
        ("https://h/stac/v1/search?collections=a,b", "api", ("https://h/stac/v1", None)),
        ("http://h/collections/s2/items", "api", ("http://h", "s2")),
        ("https://h/v1/collections/s2/", "api", ("https://h/v1", "s2")),
        ("https://h/collections/s2/collection.json", "document", None),
        ("/data/items.geojson", "document", None),
        ("s3://b/items.parquet", "geoparquet", None),
        ("/data/search", "files", None),
        ("https://h/images", "files", None),
        ("s3://b/collections/s2", "files", None),
    ],
)
def test_kinds_of_archives(uri: str, kind: str, parts: Any) -> None:
    assert (kind_of(uri), api_parts(uri)) == (kind, parts)


def test_options_of_apis() -> None:
    given: dict[str, Any] = {"models": "m", "index": "i"}
    asked = IndexConfig(archive="https://h/search", cql2="a < 1", max_items=3, sign="planetary-computer", **given)
    assert asked.item_selection == ItemSelection(cql2="a < 1", max_items=3, sign="planetary-computer")
    for archive, options, words in (
        ("x.json", {"cql2": "a < 1"}, "about STAC APIs"),
        ("folder", {"max_items": 3}, "about STAC catalogues"),
        ("https://h/search", {"sign": "nobody"}, "--sign"),
    ):
        with pytest.raises(ConfigError, match=words):
            IndexConfig(archive=archive, **options, **given)
