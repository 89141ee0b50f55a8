"""Bands in files of their own make the picture that they make in one file, by windows, on any store."""

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.windows import Window

from rsir_core.errors import ImageError
from rsir_core.imagery import scene_file
from rsir_core.imagery.composite import Channel, Composite, missing_channel, scene_end
from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.surroundings import read_surroundings
from rsir_core.imagery.tile_grid import Tiling
from rsir_core.imagery.tile_survey import survey
from rsir_core.imagery.tile_uri import Recipe, Tile
from rsir_core.storage.reading import open_file
from tests.support.rasters import gdal_file

RNG = np.random.default_rng(0)
GEOTIFF = Path(__file__).parents[3] / "shared" / "data" / "geotiff"
needs_geotiff = pytest.mark.skipif(not GEOTIFF.is_dir(), reason=f"no data in {GEOTIFF}")
NAMES = ("B4", "B3", "B2")
MAX = 100_000_000

names = st.text(min_size=1).filter(lambda text: "{band}" not in text and not text.startswith("!"))
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
channels = st.builds(Channel, names, st.integers(1, 200), numbers, numbers, numbers)
others = channels | st.builds(missing_channel, names)
ranges = st.none() | st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False))


@given(channels, st.lists(others, max_size=2), ranges)
def test_a_composites_uri_says_all_about_it(first: Channel, more: list[Channel], stretch: Any) -> None:
    composite = Composite((first, *more), stretch)
    uri = str(composite)
    if uri.count("{band}") > 1:  # made up of what the files have in common; such files are refused when listed
        return
    assert Composite.parse(uri) == composite
    assert uri[scene_end(uri) :] == composite.fragment
    tile = Tile(uri, Window(1, 2, 3, 4), Recipe(stretch=(0, 1)))
    assert Tile.parse(str(tile)) == tile and Composite.parse(str(tile)) is None


@pytest.mark.parametrize(
    ("uris", "uri"),
    [
        (("s3://b/L_B4.TIF", "s3://b/L_B3.TIF", "s3://b/L_B2.TIF"), "s3://b/L_{band}.TIF#band=B4,B3,B2"),
        (("/a/R10m/B04.jp2", "/a/R10m/B03.jp2", "/a/R20m/B12.jp2"), "/a/{band}.jp2#band=R10m/B04,R10m/B03,R20m/B12"),
        (("zip://4.tif::/a.zip", "zip://3.tif::/a.zip", "zip://2.tif::/a.zip"), "zip://{band}.tif::/a.zip#band=4,3,2"),
        (("/a/red.tif", "/a/green.tif", "/b/blue.jp2"), "/{band}#band=a/red%2Etif,a/green%2Etif,b/blue%2Ejp2"),
        (("/a/naip.tif",) * 3, "/a/naip.tif#number=1,1,1"),
        (("/a/B8.tif",), "/a/B8.tif#number=1"),
        (("/a/B8.tif", "!B3", "/a/B2.tif"), "/a/{band}.tif#band=B8,!B3,B2"),
    ],
)
def test_uris_are_readable(uris: tuple[str, ...], uri: str) -> None:
    assert str(Composite(tuple(map(Channel, uris)))) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "/a/{band}.tif",
        "/a/b.tif#band=1,2,3",
        "/a/{band}#band=1&number=1,2",
        "/a#number=x",
        "/a#number=1&x=1",
        "/a#band=1",
    ],
)
def test_what_is_no_composite(uri: str) -> None:
    assert Composite.parse(uri) is None and scene_end(uri) == len(uri)


def split(file: Path, folder: Path, **options: Any) -> str:
    """Write each of three bands of a raster into a file of its own; returns the composite's URI."""
    with rasterio.open(file) as dataset:
        found = dataset.read([1, 2, 3])
        place = {"crs": dataset.crs, "transform": dataset.transform, "nodata": dataset.nodata}
    for name, band in zip(NAMES, found, strict=True):
        (folder / f"{file.stem}_{name}.tif").write_bytes(gdal_file(band[None], **{**place, "tiled": True, **options}))
    return str(Composite(tuple(Channel(f"{folder}/{file.stem}_{name}.tif") for name in NAMES)))


@needs_geotiff
@pytest.mark.parametrize("name", ["RGB.byte.tif", "OSBS_029.tif", "mosaic_cog1.tif", "small-uint16-tile.tif"])
def test_real_scenes_taken_apart_are_the_same_picture(tmp_path: Path, name: str) -> None:
    with rasterio.open(GEOTIFF / name) as dataset:
        if dataset.count < 3:
            pytest.skip(f"{name} has {dataset.count} bands")
        width, height, place = dataset.width, dataset.height, dataset.transform
    uri, whole = split(GEOTIFF / name, tmp_path), f"{GEOTIFF / name}"
    for window in (Window(0, 0, width, height), Window(width // 3, height // 4, width // 2, height // 2)):
        recipe = Recipe(bands=(1, 2, 3))
        wanted = read_picture(str(Tile(whole, window, recipe)))
        found = read_picture(str(Tile(uri, window, Recipe())))
        np.testing.assert_array_equal(found.pixels, wanted.pixels)
        assert found.footprint == wanted.footprint and (found.footprint is None) == place.is_identity
    np.testing.assert_array_equal(
        read_picture(uri).pixels,
        read_picture(str(Tile(whole, Window(0, 0, width, height), Recipe(bands=(1, 2, 3))))).pixels,
    )
    together, apart = survey(whole, Tiling(64, 0.25, bands="1,2,3"), MAX), survey(uri, Tiling(64, 0.25), MAX)
    assert together and apart and list(apart.windows) == list(together.windows)
    assert apart.recipe == together.recipe._replace(bands=())


PLACE = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
COARSE = {"crs": "EPSG:32633", "transform": Affine(20, 0, 500_000, 0, -20, 5_000_000)}


def write(folder: Path, *bands: npt.NDArray[Any], places: Any = (PLACE,) * 3, **options: Any) -> list[Channel]:
    files = [folder / f"s_{name}.tif" for name in NAMES]
    for file, band, place in zip(files, bands, places, strict=False):
        file.write_bytes(gdal_file(band[None], **{**place, **options}))
    return [Channel(str(file)) for file in files]


def smooth(side: int, top: float) -> npt.NDArray[np.uint16]:
    y, x = np.mgrid[0:side, 0:side] / side
    found: npt.NDArray[np.uint16] = (1 + top * (x + 2 * y) / 3).astype(np.uint16)
    return found


def test_coarser_bands_are_interpolated_alike_in_windows(tmp_path: Path) -> None:
    fine, coarse = smooth(256, 5000), smooth(128, 5000)
    uri = str(Composite(tuple(write(tmp_path, coarse, fine, fine, places=(COARSE, PLACE, PLACE)))))
    ends = (0.0, 5000.0)
    whole = read_picture(str(Tile(uri, Window(0, 0, 256, 256), Recipe(stretch=ends)))).pixels
    assert abs(whole[..., 0].astype(int) - whole[..., 1]).max() <= 2  # blocks of 2×2 would be off by more, and step
    steep = read_picture(str(Tile(uri, Window(100, 100, 40, 40), Recipe(stretch=(2200.0, 2800.0))))).pixels[20, :, 0]
    assert np.count_nonzero(np.diff(steep)) > 30  # blocks of 2×2 would step at every other pixel
    for x, y, w, h in ((33, 17, 64, 64), (0, 191, 255, 65), (101, 101, 1, 1)):
        part = read_picture(str(Tile(uri, Window(x, y, w, h), Recipe(stretch=ends)))).pixels
        np.testing.assert_array_equal(part, whole[y : y + h, x : x + w])


def test_bands_that_cover_less_are_black_beyond(tmp_path: Path) -> None:
    moved = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_320, 0, -10, 5_000_000)}  # 32 pixels east
    samples = RNG.integers(100, 1000, (3, 64, 64)).astype(np.uint16)
    uri = str(Composite(tuple(write(tmp_path, *samples, places=(PLACE, PLACE, moved))), (0, 1020)))
    found = read_picture(uri).pixels
    assert not found[:, :32, 2].any() and found[:, 32:, 2].all() and found[..., :2].all()
    np.testing.assert_array_equal(found[:, 32:, 2], np.rint(samples[2, :, :32] / 4).astype(np.uint8))


def test_a_band_that_alone_declares_nodata_is_not_stretched_from_it(tmp_path: Path) -> None:
    samples = RNG.integers(100, 1000, (3, 64, 64)).astype(np.int16)
    samples[0, :, :16] = -9999
    first, *others = write(tmp_path, *samples)
    with rasterio.open(first.uri, "r+") as dataset:
        dataset.nodata = -9999
    alone = read_picture(str(Composite((first, *others))))
    everywhere = (first, *(channel._replace(nodata=-9999.0) for channel in others))
    np.testing.assert_array_equal(alone.pixels, read_picture(str(Composite(everywhere))).pixels)
    assert alone.pixels[:, 16:].std() > 60 and not alone.pixels[:, :16, 0].any()


def test_scale_and_offset_of_file_and_catalogue_are_applied(tmp_path: Path) -> None:
    samples = RNG.integers(1000, 11_000, (3, 40, 50)).astype(np.uint16)
    samples[:, 5, 5] = 0
    apart = write(tmp_path, *samples, nodata=0)
    with rasterio.open(apart[0].uri, "r+") as dataset:  # GDAL's own
        dataset.scales, dataset.offsets = (0.0001,), (-0.1,)
    linear = [apart[0], *(channel._replace(scale=0.0001, offset=-0.1) for channel in apart[1:])]
    found = read_picture(str(Composite(tuple(linear), (0.0, 0.5))))
    expected = np.interp(samples.transpose(1, 2, 0) * 0.0001 - 0.1, (0, 0.5), (0, 255))
    expected[5, 5] = 0
    np.testing.assert_allclose(found.pixels, expected, atol=0.51)
    assert found.notes and "float32 0 to 0.5" in found.notes
    mixed = (linear[0], linear[1]._replace(scale=None, offset=None), linear[2])
    assert read_picture(str(Composite(mixed, (0.0, 0.5)))).pixels[..., 1].min() in (0, 255)  # raw numbers: white


def test_one_stretch_holds_for_all_tiles_of_a_scene(tmp_path: Path) -> None:
    uri = str(Composite(tuple(write(tmp_path, *(smooth(200, 4000),) * 3, tiled=True))))
    cut = survey(uri, Tiling(64, 0.0), MAX)
    assert cut and cut.recipe.stretch == pytest.approx(np.percentile(smooth(200, 4000), (2, 98)), rel=0.01)
    fixed = survey(str(Composite(Composite.parse(uri).channels, (0, 9999))), Tiling(64, 0.0), MAX)  # type: ignore[union-attr]
    assert fixed and fixed.recipe.stretch == (0.0, 9999.0) and len(list(fixed.windows)) == 16


def test_bands_of_one_file_by_number(tmp_path: Path) -> None:
    samples = RNG.integers(1, 250, (4, 40, 40)).astype(np.uint8)
    (tmp_path / "naip.tif").write_bytes(gdal_file(samples, **PLACE))
    found = read_picture(f"{tmp_path}/naip.tif#number=4,1,2")
    np.testing.assert_array_equal(found.pixels, samples[[3, 0, 1]].transpose(1, 2, 0))
    grey = read_picture(f"{tmp_path}/naip.tif#number=2").pixels
    np.testing.assert_array_equal(grey, np.repeat(samples[1][..., None], 3, 2))
    around = read_surroundings(f"{tmp_path}/naip.tif#number=4,1,2#xywh=10,10,10,10", 1.0)
    np.testing.assert_array_equal(around.pixels, found.pixels[:30, :30])


def test_masks_and_control_points_are_kept(tmp_path: Path) -> None:
    points = [GroundControlPoint(r, c, 10 + c / 100, 50 - r / 100) for r, c in ((0, 0), (0, 40), (40, 0), (40, 40))]
    samples = RNG.integers(1, 250, (3, 40, 40)).astype(np.uint8)
    apart = write(tmp_path, *samples, places=({"gcps": points, "crs": "EPSG:4326"},) * 3)
    for channel in apart:
        with rasterio.open(channel.uri, "r+") as dataset:
            mask = np.full((40, 40), 255, np.uint8)
            mask[:10] = 0
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                dataset.write_mask(mask)
    found = read_picture(str(Composite(tuple(apart))))
    assert not found.pixels[:10].any() and found.footprint and found.footprint.bbox.west == pytest.approx(10, abs=0.01)
    np.testing.assert_array_equal(found.pixels[10:], samples[:, 10:].transpose(1, 2, 0))


def test_only_windows_are_read_and_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = RNG.integers(1, 60_000, (3, 1024, 1024)).astype(np.uint16)  # does not compress
    uris = [channel.uri for channel in write(tmp_path, *samples, tiled=True, blockxsize=128, blockysize=128)]
    read: list[int] = []
    opened: list[str] = []

    monkeypatch.setattr(scene_file, "open_file", lambda uri: Counted(uri, opened, read))
    read_picture(f"{Composite(tuple(map(Channel, uris)))}#xywh=130,130,100,100")
    assert opened == uris and sum(read) < 6 * 128 * 128 * 2 + 200_000 < samples.nbytes / 10


class Counted:
    """A file that says what is read of it."""

    def __init__(self, uri: str, opened: list[str], read: list[int]) -> None:
        self._file, self._read = open_file(uri), read
        opened.append(uri)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._read.append(len(data))
        return data

    def seek(self, *where: int) -> int:
        return self._file.seek(*where)

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def test_bands_on_a_store(tmp_path: Path) -> None:
    samples = RNG.integers(1, 250, (3, 40, 40)).astype(np.uint8)
    for channel in write(tmp_path, *samples):
        with fsspec.open(f"memory://bands/{Path(channel.uri).name}", "wb") as file:
            file.write(Path(channel.uri).read_bytes())
    found = read_picture("memory://bands/s_{band}.tif#band=B4,B3,B2")
    np.testing.assert_array_equal(found.pixels, samples.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("harm", "stage", "kind", "words"),
    [
        ("gone", "read", "missing", r"s_B3\.tif is gone"),
        ("empty", "read", "empty", r"s_B3\.tif is empty"),
        ("text", "decode", "unsupported", r"s_B3\.tif is no TIFF"),
        ("header", "decode", "corrupt", r"s_B3\.tif cannot be decoded"),
        ("body", "decode", "corrupt", r"s_B3\.tif cannot be decoded"),
        ("crs", "decode", "unsupported", "different reference systems"),
        ("turned", "decode", "unsupported", "turned against each other"),
        ("number", "decode", "unsupported", r"s_B3\.tif has 1 bands, and none with number 2"),
        ("complex", "decode", "unsupported", r"s_B3\.tif has samples of complex64"),
        ("unnamed", "read", "missing", "has no band B3"),
    ],
)
def test_a_broken_band_says_which(tmp_path: Path, harm: str, stage: str, kind: str, words: str) -> None:
    samples = RNG.integers(1, 60_000, (3, 300, 300)).astype(np.uint16)
    apart = write(tmp_path, *samples, tiled=True, blockxsize=64, blockysize=64)
    file = tmp_path / "s_B3.tif"
    data = file.read_bytes()
    match harm:
        case "gone":
            file.unlink()
        case "empty" | "text" | "header" | "body":
            file.write_bytes({"empty": b"", "text": b"text", "header": data[:60], "body": data[: len(data) // 2]}[harm])
        case "crs" | "turned":
            turn = Affine(10, 1, 500_000, 1, -10, 5_000_000)
            place = {**PLACE, **({"crs": "EPSG:32634"} if harm == "crs" else {"transform": turn})}
            file.write_bytes(gdal_file(samples[:1], **place))
        case "number":
            apart[1] = apart[1]._replace(number=2)
        case "complex":
            file.write_bytes(gdal_file(samples[:1].astype(np.complex64), **PLACE))
        case "unnamed":
            apart[1] = missing_channel("B3")
    with pytest.raises(ImageError, match=words) as refused:
        read_picture(str(Composite(tuple(apart))))
    assert (refused.value.stage, refused.value.kind) == (stage, kind)


def test_too_large_a_whole(tmp_path: Path) -> None:
    uri = str(Composite(tuple(write(tmp_path, *(smooth(128, 9),) * 3))))
    with pytest.raises(ImageError, match="pixels") as refused:
        read_picture(uri, 128 * 127)
    assert refused.value.kind == "too_large"


def test_colours_of_the_files_do_not_matter(tmp_path: Path) -> None:
    samples = RNG.integers(1, 250, (3, 40, 40)).astype(np.uint8)
    apart = write(tmp_path, *samples)
    (tmp_path / "s_B4.tif").write_bytes(gdal_file(samples[:1], colours=(ColorInterp.blue,), **PLACE))
    np.testing.assert_array_equal(read_picture(str(Composite(tuple(apart)))).pixels, samples.transpose(1, 2, 0))
