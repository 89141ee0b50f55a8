"""Bands apart are found: by the names of files, and by what items of known catalogues say of their assets."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest

from jobs.indexing.options import IndexConfig
from rsir_core.archive import items
from rsir_core.archive.bands import list_band_files
from rsir_core.archive.items import ItemSelection, image_file
from rsir_core.archive.kinds import BandChoice
from rsir_core.archive.listing import rebase_uri, root_of
from rsir_core.errors import ArchiveError, ConfigError

RED_GREEN_BLUE = BandChoice(("4", "3", "2"))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def listed(folder: Path, pattern: str, *bands: str) -> dict[str, str]:
    found = list_band_files(str(folder), pattern, BandChoice(bands))
    return {file.image_id: file.uri.replace(f"{folder}/", "") for file in found}


def test_files_of_bands_make_scenes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"2023/LC08_{scene}_B{band}.TIF" for scene in "ab" for band in (1, 2, 3, 4, 10)), "x/photo.jpg")
    scenes = {f"2023/LC08_{scene}_{{band}}.TIF": f"2023/LC08_{scene}_{{band}}.TIF#band=B4,B3,B2" for scene in "ab"}
    assert listed(tmp_path, "{scene}_B{band}.TIF", "4", "3", "2") == scenes
    assert listed(tmp_path, "2023/{scene}_B{band}.TIF", "4", "3", "2") == scenes
    assert listed(tmp_path, "{scene}_{band}.TIF", "B4", "B3", "B2") == scenes
    grey = listed(tmp_path, "{scene}_B{band}.TIF", "10")
    assert grey == {f"2023/LC08_{s}_B10.TIF": f"2023/LC08_{s}_B10.TIF#number=1" for s in "ab"}


def test_files_of_bands_in_folders_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, *(f"S2A/IMG/R{size}/T33_{band}_{size}.jp2" for band, size in (("B04", "10m"), ("B8A", "20m"))),
          "S2A/IMG/R10m/T33_B08_10m.jp2", "S2A/IMG/R20m/T33_B04_20m.jp2")  # fmt: skip
    found = listed(tmp_path, "{scene}/IMG/R*/*_{band}_*.jp2", "B8A", "B08", "B08")
    value = "R20m/T33_B8A_20m,R10m/T33_B08_10m,R10m/T33_B08_10m"
    assert found == {"S2A/IMG/{band}.jp2": f"S2A/IMG/{{band}}.jp2#band={value}"}
    with pytest.raises(ArchiveError, match="are both band B04 of scene S2A"):
        listed(tmp_path, "{scene}/IMG/R*/*_{band}_*.jp2", "B04")
    repeated = listed(tmp_path, "{scene}/IMG/R*/T33_{band}_10m.jp2", "B04", "B08", "B04")
    assert set(repeated) == {"S2A/IMG/R10m/T33_{band}_10m.jp2"}


def test_an_etag_changes_with_any_band_and_with_how_they_are_read(tmp_path: Path) -> None:
    touch(tmp_path, *(f"s_{band}.tif" for band in "2345"))

    def etag(*bands: str, stretch: Any = None) -> str:
        (file,) = list_band_files(str(tmp_path), "{scene}_{band}.tif", BandChoice(bands, stretch))
        return file.etag

    before = etag("4", "3", "2")
    assert len({before, etag("5", "4", "3"), etag("2", "3", "4"), etag("4", "3", "2", stretch=(0, 0.3))}) == 4
    (tmp_path / "s_5.tif").write_bytes(b"changed")
    assert etag("4", "3", "2") == before
    for band in "432":
        (tmp_path / f"s_{band}.tif").write_bytes(b"changed")
        assert etag("4", "3", "2") != before
        before = etag("4", "3", "2")
    (tmp_path / "s_3.tif").unlink()
    assert etag("4", "3", "2") != before


def test_a_scene_that_lacks_a_band_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a_4.tif", "a_3.tif", "a_2.tif", "b_4.tif", "b_2.tif")
    (*_, lacking) = sorted(list_band_files(str(tmp_path), "{scene}_{band}.tif", RED_GREEN_BLUE))
    assert lacking.uri == f"{tmp_path}/b_{{band}}.tif#band=4,3,2"
    assert lacking.image_id == "b_{band}.tif" and lacking.size == -1
    touch(tmp_path, "b_3.tif")
    (*_, whole) = sorted(list_band_files(str(tmp_path), "{scene}_{band}.tif", RED_GREEN_BLUE))
    assert whole.image_id == lacking.image_id and whole.etag != lacking.etag


def test_what_is_no_archive_of_bands(tmp_path: Path) -> None:
    touch(tmp_path, "a_4.tif", "odd{band}_4.tif")
    with pytest.raises(ArchiveError, match="no file of a band 9"):
        listed(tmp_path, "{scene}_{band}.tif", "9")
    with pytest.raises(ArchiveError, match="rename it"):
        listed(tmp_path, "{scene}_{band}.tif", "4")


def test_an_archive_of_bands_may_move(tmp_path: Path) -> None:
    touch(tmp_path, "x/a_4.tif", "x/a_3.tif", "x/a_2.tif")
    (file,) = list_band_files(str(tmp_path), "{scene}_{band}.tif", RED_GREEN_BLUE)
    (tmp_path / "x").rename(tmp_path / "y")
    (moved,) = list_band_files(str(tmp_path / "y"), "{scene}_{band}.tif", RED_GREEN_BLUE)
    (tmp_path / "y").rename(tmp_path / "x")
    (there,) = list_band_files(str(tmp_path / "x"), "{scene}_{band}.tif", RED_GREEN_BLUE)
    assert moved.etag == there.etag and moved.image_id == there.image_id
    for end in ("", "#xywh=0,0,8,8"):
        root = root_of(moved.uri + end, moved.image_id + end)
        assert root is not None and rebase_uri(root, there.uri + end, there.image_id + end) == moved.uri + end
    assert file.image_id == "x/a_{band}.tif"


def asset(href: str, *roles: str, **more: Any) -> pystac.Asset:
    more = {key.replace("__", ":"): value for key, value in more.items()}
    return pystac.Asset(href, media_type=pystac.MediaType.COG, roles=list(roles), extra_fields=more)


def common(*names: str) -> list[dict[str, Any]]:
    return [{"name": f"band {n}", "common_name": name} for n, name in enumerate(names)]


def eo(name: str, common_name: str) -> dict[str, Any]:
    return {"eo__bands": [{"name": name, "common_name": common_name}]}


SENTINEL_2 = {  # as on the Planetary Computer
    "visual": asset("/s/TCI.tif", "data", eo__bands=common("red", "green", "blue"), gsd=10),
    "B02": asset("/s/B02.tif", "data", gsd=10, **eo("B02", "blue")),
    "B03": asset("/s/B03.tif", "data", gsd=10, **eo("B03", "green")),
    "B04": asset("/s/B04.tif", "data", gsd=10, **eo("B04", "red")),
    "B08": asset("/s/B08.tif", "data", gsd=10, **eo("B08", "nir")),
    "preview": asset("/s/preview.tif", "overview"),
}
SENTINEL_2_1_1 = {  # as on Earth Search, by STAC 1.1, with scale and offset
    key: asset(f"/s/{file}", "data", "reflectance", bands=[{"name": key, "eo:common_name": key}], raster__scale=0.0001,
               raster__offset=-0.1, nodata=0)
    for key, file in (("red", "B04.tif"), ("green", "B03.tif"), ("blue", "B02.tif"), ("nir", "B08.tif"))
} | {"red-jp2": asset("/s/B04.jp2", "data", bands=[{"name": "red", "eo:common_name": "red"}])}  # fmt: skip
LANDSAT = {  # as of the USGS
    key: asset(f"/l/LC08_SR_{band}.TIF", "data", raster__bands=[{"scale": 2.75e-05, "offset": -0.2, "nodata": 0}],
               **eo(band, key))
    for key, band in (("blue", "B2"), ("green", "B3"), ("red", "B4"), ("nir08", "B5"))
} | {"qa_pixel": asset("/l/QA.TIF", "metadata")}  # fmt: skip
NAIP = {"image": asset("/n/m.tif", "data", eo__bands=common("red", "green", "blue", "nir")),
        "thumbnail": asset("/n/m.jpg", "thumbnail")}  # fmt: skip
TWICE = {f"B0{n}_{size}m": asset(f"/s/B0{n}_{size}m.jp2", "data", gsd=size, **eo(f"B0{n}", name))
         for size in (20, 10, 60) for n, name in ((4, "red"), (3, "green"), (2, "blue"))}  # fmt: skip
PLANET = {
    "visual": asset("/p/visual.tif", "visual", eo__bands=common("red", "green", "blue")),
    "analytic": asset("/p/analytic.tif", "data", eo__bands=common("blue", "green", "red", "nir")),
}


@pytest.mark.parametrize(
    ("assets", "bands", "uri"),
    [
        (SENTINEL_2, "red,green,blue", "/s/{band}.tif#band=B04,B03,B02"),
        (SENTINEL_2, "nir,RED,green", "/s/{band}.tif#band=B08,B04,B03"),
        (SENTINEL_2, "B08,B04,B03", "/s/{band}.tif#band=B08,B04,B03"),
        (SENTINEL_2_1_1, "red,green,blue", "/s/{band}.tif#band=B04,B03,B02&scale=0.0001,0.0001,0.0001"
         "&offset=-0.1,-0.1,-0.1&nodata=0,0,0"),
        (LANDSAT, "nir,red,green", "/l/LC08_SR_{band}.TIF#band=B5,B4,B3&scale=2.75e-05,"
         "2.75e-05,2.75e-05&offset=-0.2,-0.2,"
         "-0.2&nodata=0,0,0"),
        (NAIP, "nir,red,green", "/n/m.tif#number=4,1,2"),
        (TWICE, "red,green,blue", "/s/{band}_10m.jp2#band=B04,B03,B02"),
        (PLANET, "red,green,blue", "/p/analytic.tif#number=3,2,1"),
        (SENTINEL_2, "red,green,swir22", "/s/{band}.tif#band=B04,B03,!swir22"),
        (NAIP, "red", "/n/m.tif#number=1"),
    ],
)  # fmt: skip
def test_bands_of_known_catalogues(assets: dict[str, pystac.Asset], bands: str, uri: str) -> None:
    found = image_file(item(assets), ItemSelection(bands=BandChoice(tuple(bands.split(",")))), "/items.json")
    assert found.uri == uri
    assert found.image_id.startswith("one.") and found.time == datetime(2024, 1, 15, tzinfo=UTC)


def item(assets: dict[str, pystac.Asset]) -> pystac.Item:
    time = datetime(2024, 1, 15, tzinfo=UTC)
    copies = {key: asset.clone() for key, asset in assets.items()}
    return pystac.Item("one", None, None, time, {"updated": "v1"}, assets=copies)


def test_an_asset_that_is_named_is_the_only_one() -> None:
    wanted = BandChoice(("red", "green", "blue"))
    found = image_file(item(PLANET), ItemSelection(asset="visual", bands=wanted), "/items.json")
    assert found.uri == "/p/visual.tif#number=1,2,3"
    numbers = ItemSelection(asset="visual", bands=BandChoice(("3", "2", "1")), is_tiled=True)
    assert image_file(item(PLANET), numbers, "/items.json").uri == "/p/visual.tif"  # its tiles read these
    with pytest.raises(ArchiveError, match=r"which asset has the bands 3, 2, 1, so /p/visual.tif .*--tile"):
        image_file(item(PLANET), replace(numbers, is_tiled=False), "/items.json")


def test_a_store_that_does_not_answer_now_makes_no_asset_another(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = pystac.Item(
        "one", None, None, datetime(2024, 1, 15, tzinfo=UTC), {}, assets={"a": asset("/p/a.tif", "data")}
    )
    answers: list[Any] = []

    def ask(_: str) -> tuple[str, int]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer, 1

    def etag() -> str:
        return image_file(silent, ItemSelection(), "/items.json").etag.partition("@")[0]

    monkeypatch.setattr(items, "etag_of", ask)
    monkeypatch.setattr(items, "PAUSE", 0)
    answers[:] = [TimeoutError("slow"), ConnectionError("reset"), "e1"]
    assert etag() == "e1"
    for never in (FileNotFoundError("none"), PermissionError("denied")):
        answers[:] = [never]
        assert etag() == "unknown"  # it becomes a failure
    answers[:] = [TimeoutError("slow")] * 3
    with pytest.raises(ArchiveError, match=r"/p/a\.tif: .*TimeoutError: slow.*run the same command again"):
        etag()


def test_another_asset_of_an_item_is_another_image() -> None:
    found = {key: image_file(item(PLANET), ItemSelection(asset=key), "/items.json") for key in ("visual", "analytic")}
    assert found["visual"].image_id == found["analytic"].image_id
    assert found["visual"].etag != found["analytic"].etag  # the item says only that it was updated


def test_bands_that_no_asset_has_are_refused_with_those_there_are() -> None:
    with pytest.raises(ArchiveError, match=r"none of the bands x, y, z; it has red, green, blue, nir; .*--bands"):
        image_file(item(NAIP), ItemSelection(bands=BandChoice(("x", "y", "z"))), "/items.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bands": "red,green,blue"}, "--band-files"),
        ({"bands": "red,green", "archive": "x.json"}, "give three"),
        ({"band_files": "{scene}_{band}.tif"}, "--bands as well"),
        ({"band_files": "{scene}.tif", "bands": "1"}, "a pattern with {scene} and {band}"),
        ({"band_files": "{scene}_{band}.tif", "bands": "1", "archive": "x.json"}, "is a catalogue"),
        ({"stretch": "0,1"}, "--stretch"),
        ({"stretch": "1,0", "bands": "1", "archive": "x.json"}, "smaller value first"),
        ({"stretch": "1", "bands": "1", "archive": "x.json"}, "--stretch"),
    ],
)
def test_options_of_bands(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        IndexConfig(**{"archive": "folder", "models": "m", "index": "i", **options})


def test_options_become_a_choice() -> None:
    given = IndexConfig(archive="x.json", models="m", index="i", bands="nir, red,green", stretch="0,0.3")
    assert given.band_choice == BandChoice(("nir", "red", "green"), (0, 0.3))
    assert given.item_selection and given.item_selection.bands == given.band_choice
