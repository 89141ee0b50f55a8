"""How scenes are cut: the tiles cover them, those without data are left out, and what is remembered says it all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import Affine

from jobs.indexing.options import IndexConfig
from rsir_core import schemas
from rsir_core.archive.listing import ImageFile
from rsir_core.errors import ConfigError, ImageError
from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.sandbox import JsonObject, Reader, memory_for
from rsir_core.imagery.tile_grid import TileGrid, Tiling, may_be_scenes, with_tiles
from rsir_core.imagery.tile_survey import SURVEYED, survey, survey_files
from rsir_core.imagery.tile_uri import Recipe
from rsir_core.index.diff import listing_table
from tests.imagery.test_tile_uri import RNG, cog
from tests.support.poison import KINDS, look_into_poisoned
from tests.support.rasters import gdal_file

PLENTY = 10**8


@pytest.fixture(scope="module")
def readers() -> Iterator[list[Reader[JsonObject]]]:
    """Two, of a function that acts on some names as GDAL does on some files."""
    found = [Reader(look_into_poisoned, 4, memory_for(PLENTY)) for _ in range(2)]
    yield found
    for reader in found:
        reader.close()


sizes = st.integers(1, 60)


@given(st.tuples(sizes, sizes), st.tuples(sizes, sizes), st.floats(0, 0.9))
def test_tiles_cover_a_scene_and_stay_inside(scene: tuple[int, int], wanted: tuple[int, int], overlap: float) -> None:
    tile = min(scene[0], wanted[0]), min(scene[1], wanted[1])
    step = max(1, round(tile[0] * (1 - overlap))), max(1, round(tile[1] * (1 - overlap)))
    windows = list(TileGrid(scene, tile, step, Recipe(), None).windows)
    assert len(set(map(str, windows))) == len(windows)
    assert all((w.width, w.height) == tile for w in windows)
    for axis, starts in enumerate(({w.col_off for w in windows}, {w.row_off for w in windows})):
        covered = {position for start in starts for position in range(start, start + tile[axis])}
        assert covered == set(range(scene[axis]))
        gaps = np.diff(sorted(starts))
        assert (gaps <= step[axis]).all()


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_what_is_remembered_of_a_scene_is_all(columns: int, lines: int, data: st.DataObject) -> None:
    kept = data.draw(st.none() | st.lists(st.booleans(), min_size=columns * lines, max_size=columns * lines))
    mask = None if kept is None else np.array(kept, np.bool_)
    cut = TileGrid((columns * 8, lines * 4), (8, 4), (8, 4), Recipe((4, 2), (3, 2, 1), (0.1, 1e6)), mask)
    again = TileGrid.of_row(cut.row())
    assert again[:4] == cut[:4] and list(map(str, again.windows)) == list(map(str, cut.windows))
    assert again.skipped == cut.skipped


def test_images_that_fit_into_a_tile_are_images(tmp_path: Path) -> None:
    (tmp_path / "s.tif").write_bytes(gdal_file(np.ones((3, 64, 48), np.uint8)))
    assert survey(str(tmp_path / "s.tif"), Tiling(64, 0.25), PLENTY) is None
    cut = survey(str(tmp_path / "s.tif"), Tiling(48, 0.25), PLENTY)
    assert cut is not None and cut[:4] == ((48, 64), (48, 48), (36, 36), Recipe()) and len(list(cut.windows)) == 2


@pytest.mark.slow
def test_a_stretch_is_the_scenes_and_nodata_is_skipped(tmp_path: Path, readers: list[Reader[JsonObject]]) -> None:
    samples = np.zeros((3, 1024, 1536), np.uint16)
    samples[:, :, :512] = RNG.integers(100, 200, (3, 1024, 512))
    samples[:, :512, 512:1024] = RNG.integers(900, 1000, (3, 512, 512))  # right of it, and below, is nothing
    for name, data in {"cog": cog(samples, nodata=0, compress="none"), "plain": gdal_file(samples, nodata=0)}.items():
        (tmp_path / f"{name}.tif").write_bytes(data)
        cut = survey(uri := f"{tmp_path}/{name}.tif", Tiling(256, 0), PLENTY)
        assert cut is not None and cut.recipe.stretch is not None and cut.skipped == 4 * 6 - 4 * 2 - 2 * 2
        assert cut.recipe.stretch == pytest.approx((104, 996), abs=3 if name == "plain" else 40)  # overviews are means
        listing = listing_table([ImageFile("a/s.tif", uri, "1", 5)])
        found = survey_files(listing, readers, Tiling(256, 0), PLENTY)
        tiles, skipped = with_tiles(listing, found.select(schemas.SCENES.names))
        assert skipped == cut.skipped and len(tiles) == 12 and tiles.schema == schemas.LISTING
        dark, bright = (read_picture(tiles["uri"][i].as_py()) for i in (0, 2))
        assert dark.pixels.max() < 40 and bright.pixels.min() > 200 and "of the scene" in str(bright.notes)


def test_mostly_nodata_is_less_than_half(tmp_path: Path) -> None:
    samples = np.zeros((1, 100, 200), np.uint8)
    samples[:, :, :49] = samples[:, :, 149:] = 7
    (tmp_path / "s.tif").write_bytes(gdal_file(samples, nodata=0))
    cut = survey(str(tmp_path / "s.tif"), Tiling(100, 0), PLENTY)
    assert cut is not None and [w.col_off for w in cut.windows] == [100]
    (tmp_path / "s.tif").write_bytes(gdal_file(samples * 0, nodata=0))
    nothing = survey(str(tmp_path / "s.tif"), Tiling(100, 0), PLENTY)
    assert nothing is not None and not list(nothing.windows) and nothing.skipped == 2


@pytest.mark.parametrize(
    ("crs", "pixel", "tile"),
    [
        ("EPSG:32633", 2.0, (100, 100)),
        ("EPSG:3857", 2 / 0.7071, (100, 100)),
        ("EPSG:4326", 2 / 111_320, (142, 100)),
        ("EPSG:2225", 2 / 0.3048, (100, 100)),
    ],
)
def test_tiles_of_so_many_metres(tmp_path: Path, crs: str, pixel: float, tile: tuple[int, int]) -> None:
    corner = {"EPSG:4326": (10, 45 + 150 * pixel), "EPSG:3857": (1e6, 5_621_521)}.get(crs, (5e5, 5e6))  # near 45° N
    place = Affine(pixel, 0, corner[0], 0, -pixel, corner[1])
    (tmp_path / "s.tif").write_bytes(gdal_file(np.ones((3, 300, 400), np.uint8), crs=crs, transform=place))
    cut = survey(str(tmp_path / "s.tif"), Tiling(50, 0.25, metres=200), PLENTY)
    assert cut is not None and cut.tile == pytest.approx(tile, abs=1) and cut.recipe.size == (50, 50)
    (tmp_path / "s.tif").write_bytes(gdal_file(np.ones((3, 300, 400), np.uint8)))
    with pytest.raises(ImageError, match="not georeferenced"):
        survey(str(tmp_path / "s.tif"), Tiling(50, 0.25, metres=200), PLENTY)


@pytest.mark.parametrize(
    ("crs", "pixel", "words"),
    [
        ("EPSG:32633", 250.0, r"pixels of 250 × 250 m.* larger tiles"),
        ("EPSG:4326", 10.0, "off the earth"),  # metres, called degrees
        ('LOCAL_CS["a building site",UNIT["metre",1]]', 1.0, "not on earth"),
    ],
)
def test_scenes_of_which_tiles_cannot_be_so_many_metres(tmp_path: Path, crs: str, pixel: float, words: str) -> None:
    place = Affine(pixel, 0, 5e5, 0, -pixel, 5e6)
    (tmp_path / "s.tif").write_bytes(gdal_file(np.ones((3, 300, 400), np.uint8), crs=crs, transform=place))
    with pytest.raises(ImageError, match=words) as caught:
        survey(str(tmp_path / "s.tif"), Tiling(50, 0.25, metres=80), PLENTY)
    assert caught.value.kind == "unsupported"


def test_a_file_of_another_format_is_an_image_like_others(tmp_path: Path) -> None:
    Image.new("RGB", (400, 300)).save(tmp_path / "photo.tif", "JPEG")
    assert survey(str(tmp_path / "photo.tif"), Tiling(50, 0.25), PLENTY) is None


def test_bands_by_name(tmp_path: Path) -> None:
    (tmp_path / "s.tif").write_bytes(cog(np.ones((5, 64, 64), np.uint8)))
    with rasterio.open(tmp_path / "s.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.descriptions = ("B02", "B03", "B04", "nir", None)
    cut = survey(str(tmp_path / "s.tif"), Tiling(32, 0, bands="nir, B04,2"), PLENTY)
    assert cut is not None and cut.recipe.bands == (4, 3, 2)
    with pytest.raises(ImageError, match=r"no band 'swir'.*b02"):
        survey(str(tmp_path / "s.tif"), Tiling(32, 0, bands="swir"), PLENTY)


@pytest.mark.slow
def test_what_cannot_be_surveyed_is_a_failure_of_its_own(tmp_path: Path, readers: list[Reader[JsonObject]]) -> None:
    poison = {name: KINDS[name] for name in ("hangs", "segfaults")}
    kinds = {"cut": "corrupt", "good": None, "gone": "missing", "small": None, **poison}
    data = cog(np.ones((3, 256, 256), np.uint8))
    for name in kinds:
        (tmp_path / f"{name}.tif").write_bytes(data[:300] if name == "cut" else data)
    (tmp_path / "gone.tif").unlink()
    (tmp_path / "small.tif").write_bytes(gdal_file(np.ones((3, 64, 64), np.uint8)))
    names = sorted(f"{name}.tif" for name in kinds)
    listing = listing_table(ImageFile(name, f"{tmp_path}/{name}", "1", 5) for name in names)
    found = survey_files(listing, readers, Tiling(128, 0), PLENTY)
    assert found.schema == SURVEYED and found["image_id"].to_pylist() == names
    assert found["kind"].to_pylist() == [kinds[name.removesuffix(".tif")] for name in names]
    cut = {row["image_id"] for row in found.to_pylist() if row["scene"]}
    assert cut == {"good.tif"}


def test_a_listing_with_tiles_changes_with_the_scene_and_how_it_is_read() -> None:
    listing = listing_table([ImageFile(n, f"/{n}", "1", 5) for n in ("a.tif", "b.jpg", "C.JP2")])
    assert may_be_scenes(listing)["image_id"].to_pylist() == ["a.tif", "C.JP2"]
    whole: dict[str, Any] = {"scene": None, "tile": None, "step": None, "recipe": None, "kept": None, "skipped": None}

    def scenes(etag: str, recipe: Recipe) -> pa.Table:
        cut = TileGrid((20, 10), (10, 10), (10, 10), recipe, None).row()
        key = {"uri": "/x", "tiling": "t"}
        found = [{"image_id": "a.tif", "etag": etag, **key, **cut}, {"image_id": "C.JP2", "etag": "1", **key, **whole}]
        return pa.Table.from_pylist(found, schemas.SCENES)

    assert with_tiles(listing, scenes("2", Recipe())) == (listing, 0)  # of other content
    tiles, _ = with_tiles(listing, scenes("1", Recipe(stretch=(0, 9))))
    ids = ["b.jpg", "C.JP2", "a.tif#xywh=0,0,10,10", "a.tif#xywh=10,0,10,10"]
    assert tiles["image_id"].to_pylist() == ids and tiles["etag"].to_pylist() == ["1"] * 4
    assert tiles["uri"][3].as_py() == "/a.tif#xywh=10,0,10,10&stretch=0,9"
    others, _ = with_tiles(listing, scenes("1", Recipe(bands=(3,))))
    assert others["image_id"].to_pylist() == ids and others["etag"].to_pylist()[2:] == ["1&bands=3"] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile": 0}, "--tile 0"),
        ({"tile": 9, "overlap": 1.0}, "--overlap 1.0"),
        ({"tile_metres": -1.0}, "--tile-metres -1.0"),
        ({"bands": "3,2,1"}, "--tile or --tile-metres"),
        ({"tile": 9, "bands": "1,2"}, "--bands 1,2"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        IndexConfig(archive="a", models="m", index="i", **options)
    assert IndexConfig(archive="a", models="m", index="i").tiling is None
