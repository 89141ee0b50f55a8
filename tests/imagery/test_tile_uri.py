"""Windows of scenes: what is read of them equals what whole rasters have there, and nothing else is touched."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.windows import Window

from rsir_core.errors import ImageError
from rsir_core.imagery import scene_file
from rsir_core.imagery.decode import Pictures, decode, read_picture
from rsir_core.imagery.tile_uri import Recipe, Tile
from rsir_core.storage.reading import open_file
from tests.support.rasters import gdal_file, large_is_slow

RNG = np.random.default_rng(0)
RED_GREEN_BLUE = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
GEOTIFF = Path(__file__).parents[3] / "shared" / "data" / "geotiff"
needs_geotiff = pytest.mark.skipif(not GEOTIFF.is_dir(), reason=f"no data in {GEOTIFF}")

numbers = st.integers(0, 10**6)
ranges = st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
recipes = st.builds(
    Recipe, st.none() | st.tuples(numbers, numbers), st.lists(numbers, max_size=3).map(tuple), st.none() | ranges
)


def cog(samples: npt.NDArray[Any], **options: Any) -> bytes:
    place = {"crs": "EPSG:32633", "transform": Affine(2, 0, 500_000, 0, -2, 5_000_000)}
    return gdal_file(samples, "COG", **{"blocksize": 128, "compress": "deflate", **place, **options})


@given(st.text(), st.tuples(numbers, numbers, numbers, numbers), recipes)
def test_a_tiles_uri_says_all_about_it(scene: str, window: tuple[int, int, int, int], recipe: Recipe) -> None:
    tile = Tile(scene, Window(*window), recipe)
    assert Tile.parse(str(tile)) == tile


@pytest.mark.parametrize("uri", ["a/b.tif", "b.tif#xywh=1,2,3", "b.tif#xywh=1,2,3,4.tif", "s3://b/x.tif?x#y", ""])
def test_what_is_no_tile(uri: str) -> None:
    assert Tile.parse(uri) is None


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("form", ["cog", "striped", "bands"])
def test_windows_equal_the_whole_picture(tmp_path: Path, dtype: str, form: str) -> None:
    samples = RNG.integers(1, 250, (3, 300, 400)).astype(dtype)
    bands: dict[str, Any] = {"interleave": "band", "tiled": True, "blockxsize": 64, "blockysize": 64}
    data = cog(samples) if form == "cog" else gdal_file(samples, **(bands if form == "bands" else {}))
    (tmp_path / "s.tif").write_bytes(data)
    whole = decode(data, "whole")
    stretch = None if dtype == "uint8" else tuple(float(p) for p in np.percentile(samples, (2, 98)))
    windows = [Window(0, 0, 64, 64), Window(336, 236, 64, 64), Window(100, 17, 63, 1), Window(0, 0, 400, 300)]
    wanted = [Tile(str(tmp_path / "s.tif"), window, Recipe(stretch=stretch)) for window in windows]  # type: ignore[arg-type]
    pictures = Pictures()
    for tile in wanted:
        found = pictures.read(str(tile))
        assert found.window == tile.window
        x, y, w, h = tile.window.flatten()
        np.testing.assert_array_equal(found.pixels, whole.pixels[y : y + h, x : x + w])
        assert (found.notes is None) == (dtype == "uint8") and (found.footprint is not None) == (form == "cog")


def test_smaller_sizes_come_from_overviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[0:1024, 0:1024]
    smooth = np.stack([x // 4, y // 4, (x + y) // 8]).astype(np.uint8)
    (tmp_path / "s.tif").write_bytes(data := cog(smooth, overview_resampling="average", compress="none"))
    opened, read = open_file, []

    def counting(uri: str) -> BinaryIO:
        file = opened(uri)

        class Counted(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                read.append(found := file.read(-1 if size is None else size))
                return found

            def seek(self, offset: int, whence: int = 0) -> int:
                return file.seek(offset, whence)

            def tell(self) -> int:
                return file.tell()

            def close(self) -> None:
                file.close()

        return Counted()

    monkeypatch.setattr(scene_file, "open_file", counting)
    tile = Tile(str(tmp_path / "s.tif"), Window(0, 512, 512, 512), Recipe(size=(128, 128)))
    found = read_picture(str(tile))
    assert found.pixels.shape == (128, 128, 3)
    block_means = smooth[:, 512:, :512].reshape(3, 128, 4, 128, 4).mean((2, 4)).transpose(1, 2, 0)
    np.testing.assert_allclose(found.pixels, block_means, atol=1.5)
    assert sum(map(len, read)) < 3 * 128 * 128 * 3 < len(data) / 20  # about one block of the overview


def test_bands_by_number(tmp_path: Path) -> None:
    samples = RNG.integers(1, 250, (5, 40, 40)).astype(np.uint8)
    (tmp_path / "s.tif").write_bytes(gdal_file(samples))
    found = read_picture(f"{tmp_path}/s.tif#xywh=8,8,32,32&bands=5,3,1")
    np.testing.assert_array_equal(found.pixels, samples[[4, 2, 0], 8:, 8:].transpose(1, 2, 0))
    with pytest.raises(ImageError, match="5 bands"):
        read_picture(f"{tmp_path}/s.tif#xywh=8,8,32,32&bands=6,3,1")


def test_a_tile_knows_its_place(tmp_path: Path) -> None:
    (tmp_path / "s.tif").write_bytes(cog(np.ones((3, 256, 256), np.uint8)))
    whole = read_picture(str(tmp_path / "s.tif")).footprint
    east, west = (read_picture(f"{tmp_path}/s.tif#xywh={x},0,128,256").footprint for x in (128, 0))
    assert whole and east and west and whole.crs == east.crs == "EPSG:32633"
    assert west.bbox.west == pytest.approx(whole.bbox.west) and east.bbox.east == pytest.approx(whole.bbox.east)
    assert west.bbox.east == pytest.approx(15 + 256 / 111_320 / np.cos(np.radians(45.15)), abs=1e-5)
    assert west.bbox.east == pytest.approx(east.bbox.west, abs=1e-5)


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("missing.tif#xywh=0,0,1,1", "missing"),
        ("empty.tif#xywh=0,0,1,1", "empty"),
        ("text.tif#xywh=0,0,1,1", "unsupported"),
        ("cut.tif#xywh=0,0,1,1", "corrupt"),
        ("s.tif#xywh=200,0,57,64", "corrupt"),
        ("s.tif#xywh=0,0,0,64", "corrupt"),
        ("s.tif#xywh=0,0,256,256", "too_large"),
        ("one_block.tif#xywh=0,0,16,16", "too_large"),
        ("nodata.tif#xywh=0,0,16,16", "no_data"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, uri: str, kind: str) -> None:
    data = cog(RNG.integers(1, 250, (3, 256, 256)).astype(np.uint8))
    for name, content in {
        "empty.tif": b"",
        "text.tif": b"no image at all",
        "cut.tif": data[:5000],
        "s.tif": data,
        "one_block.tif": gdal_file(np.ones((3, 1024, 1024), np.uint8), blockysize=1024, compress="deflate"),
        "nodata.tif": gdal_file(np.zeros((1, 64, 64), np.uint8), nodata=0),
    }.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=str(tmp_path)) as caught:
        read_picture(f"{tmp_path}/{uri}", max_pixels=128 * 128)
    assert caught.value.kind == kind


def test_a_scene_is_opened_once_and_again_where_a_tile_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.tif").write_bytes(cog(np.ones((3, 256, 256), np.uint8)))
    (tmp_path / "t.png").write_bytes(gdal_file(np.ones((3, 8, 8), np.uint8), "PNG"))
    opened: list[str] = []

    def noting(uri: str) -> BinaryIO:
        opened.append(uri)
        return open_file(uri)

    monkeypatch.setattr(scene_file, "open_file", noting)
    tile, outside = f"{tmp_path}/s.tif#xywh=64,0,64,64", f"{tmp_path}/s.tif#xywh=250,0,64,64"
    with Pictures() as pictures:
        for uri in (tile, tile, f"{tmp_path}/t.png", tile):
            pictures.read(uri)
        assert len(opened) == 1
        with pytest.raises(ImageError, match="outside"):
            pictures.read(outside)
        assert pictures.read(tile).pixels.shape == (64, 64, 3) and len(opened) == 2


def test_a_store_that_fails_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.tif").write_bytes(cog(RNG.integers(1, 250, (3, 256, 256)).astype(np.uint8)))

    class Failing(io.FileIO):
        left = 20

        def read(self, size: int | None = -1) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise PermissionError("token expired")
            return super().read(-1 if size is None else size)

    monkeypatch.setattr(scene_file, "open_file", lambda uri: Failing(uri, "rb"))
    with pytest.raises(ImageError, match="token expired") as caught:
        read_picture(f"{tmp_path}/s.tif#xywh=0,0,64,64")
    assert (caught.value.stage, caught.value.kind) == ("read", "denied")


def test_sidecars_and_neighbours_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s.tif").write_bytes(gdal_file(RNG.integers(1, 250, (1, 64, 64)).astype(np.uint8)))
    before = read_picture(f"{tmp_path}/s.tif#xywh=0,0,32,32")
    (tmp_path / "s.tif.msk").write_bytes(gdal_file(np.zeros((1, 64, 64), np.uint8)))
    (tmp_path / "s.tif.ovr").write_bytes(gdal_file(np.zeros((1, 32, 32), np.uint8)))
    (tmp_path / "s.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    nodata = "<PAMDataset><SRS>EPSG:4326</SRS><PAMRasterBand band='1'><NoDataValue>7</NoDataValue></PAMRasterBand>"
    (tmp_path / "s.tif.aux.xml").write_text(f"{nodata}</PAMDataset>")
    after = read_picture(f"{tmp_path}/s.tif#xywh=0,0,32,32")
    np.testing.assert_array_equal(before.pixels, after.pixels)
    assert before.notes == after.notes and after.footprint is None
    assert sorted(f.name for f in tmp_path.iterdir()) == ["s.tfw", "s.tif", "s.tif.aux.xml", "s.tif.msk", "s.tif.ovr"]


@needs_geotiff
@pytest.mark.parametrize("file", large_is_slow(sorted(GEOTIFF.glob("*.tif"))), ids=lambda f: f.name)
def test_real_scenes(file: Path) -> None:
    try:
        whole = read_picture(str(file))
    except ImageError as error:
        with pytest.raises(ImageError) as caught:
            read_picture(f"{file}#xywh={('600,600' if file.stem == 'corrupt' else '0,0')},16,16")
        assert caught.value.kind == error.kind
        return
    height, width = whole.pixels.shape[:2]
    tile = read_picture(f"{file}#xywh={width // 4},{height // 4},{width // 2},{height // 2}")
    if "stretch" not in (whole.notes or ""):
        part = whole.pixels[height // 4 :, width // 4 :][: height // 2, : width // 2]
        np.testing.assert_array_equal(tile.pixels, part)
    assert (tile.footprint is None) == (whole.footprint is None) and tile.time == whole.time
