"""Rasters and photographs as users have sent them: hidden halves, odd places, turned scenes, padded JPEGs."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.windows import Window

from rsir_core.errors import ImageError
from rsir_core.geo.bounding_box import BoundingBox, meets
from rsir_core.geo.footprint import footprint_of
from rsir_core.geo.placement import placement_of
from rsir_core.imagery.decode import decode, read_picture
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.tile_grid import Tiling
from rsir_core.imagery.tile_survey import survey
from rsir_core.imagery.tile_uri import Recipe, Tile
from tests.support.rasters import gdal_file, pillow_file, scene

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "odd_inputs"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no data in {SHARED}")
RED, GREEN, BLUE, NIR, ALPHA = (
    ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined, ColorInterp.alpha
)  # fmt: skip
PLENTY = 100_000_000

# 02: what alpha bands hide


def flown(kinds: tuple[ColorInterp, ...], dtype: str, **options: Any) -> bytes:
    """A scene of 128×128 whose right half was not flown: alpha 0, samples white."""
    high = 255 if dtype in ("uint8", "int16", "float32") else 65_535
    samples = np.full((len(kinds), 128, 128), high, dtype)
    samples[:, :, :64] = (np.resize(scene(128, 64).transpose(2, 0, 1), (len(kinds), 128, 64)) // 2).astype(dtype)
    for band, kind in enumerate(kinds):
        if kind == ALPHA:
            samples[band, :, :64], samples[band, :, 64:] = high, 0
    return gdal_file(samples, colours=kinds, transform=Affine(1, 0, 0, 0, -1, 0), tiled=True, blockxsize=64,
                     blockysize=64, **options)  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "kinds",
    [
        (RED, GREEN, BLUE, ALPHA),
        (RED, GREEN, BLUE, NIR, ALPHA),
        (ALPHA, RED, GREEN, BLUE),
        (RED, GREEN, BLUE, ALPHA, ALPHA),
    ],
)
@pytest.mark.parametrize("options", [{}, {"nodata": 77}])
def test_what_an_alpha_band_hides_is_black_out_of_the_stretch_and_no_tile(
    tmp_path: Path, kinds: tuple[ColorInterp, ...], dtype: str, options: dict[str, Any]
) -> None:
    data = flown(kinds, dtype, **options)
    picture = decode(data, "scene")
    assert not picture.pixels[:, 64:].any() and picture.pixels[:, :64].any()
    assert picture.notes is not None and "transparent, made black" in picture.notes
    if dtype != "uint8":  # white is hidden, so half of it is the most that is seen
        assert picture.pixels[:, :64].max() == 255
    (tmp_path / "scene.tif").write_bytes(data)
    cut = survey(str(tmp_path / "scene.tif"), Tiling(32, 0), PLENTY)
    assert cut is not None and cut.kept is not None
    assert cut.kept.reshape(4, 4).tolist() == [[True, True, False, False]] * 4


@needs_shared
@pytest.mark.parametrize(
    "name", ["rgbn_alpha_u8", "rgbn_alpha_u16", "rgb_alpha_f32", "rgb_alpha_i16", "rgb_alpha_u8_good"]
)
def test_half_of_a_real_scene_that_was_not_flown_is_left_out(name: str) -> None:
    file = SHARED / "02_alpha_fifth_band" / f"{name}.tif"
    assert not read_picture(str(file)).pixels[:, 130:].any()
    cut = survey(str(file), Tiling(64, 0), PLENTY)
    assert cut is not None and cut.kept is not None and cut.kept.sum() == 8


# 08, 09: where rasters lie


def pixels_outside(data: bytes, windows: list[Window]) -> int:
    """How many centres of pixels on earth lie outside of the bounds, or of the polygon's own, of their window."""
    count = 0
    with rasterio.MemoryFile(data) as file, file.open() as dataset:
        placement = placement_of(dataset)
        assert placement is not None
        for window in windows:
            footprint = footprint_of(dataset, window)
            x, y, width, height = window.flatten()
            xs, ys = np.meshgrid(np.arange(width) + x + 0.5, np.arange(height) + y + 0.5)
            lon, lat = placement.place(xs.ravel(), ys.ravel())
            there = np.isfinite(lon) & np.isfinite(lat)
            assert (footprint is not None) or not there.any()
            if footprint is None:
                continue
            lon, lat = (lon[there] + 180) % 360 - 180, lat[there]
            inside = [bool(meets(footprint.bbox, a, b, a, b)) for a, b in zip(lon, lat, strict=True)]
            count += len(inside) - sum(inside)
            corners = shapely.get_coordinates(shapely.from_wkb(footprint.polygon))
            assert np.abs(corners[:, 0]).max() <= 180 + 1e-9 and np.abs(corners[:, 1]).max() <= 90 + 1e-9
    return count


def all_windows(side: int, width: int, height: int) -> list[Window]:
    return [Window(x, y, side, side) for y in range(0, height, side) for x in range(0, width, side)]


@pytest.mark.parametrize(
    ("crs", "left", "top", "pixel"),
    [
        ("+proj=geos +h=35785831 +lon_0=0 +sweep=y", -5.5e6, 5.5e6, 1.1e7 / 128),
        ("+proj=geos +h=35785831 +lon_0=140.7 +sweep=y", -5.5e6, 5.5e6, 1.1e7 / 128),  # Himawari, over the antimeridian
        ("+proj=moll +lon_0=0", -1.81e7, 1.81e7, 3.62e7 / 128),
        ("+proj=robin +lon_0=150", -1.8e7, 1.8e7, 3.6e7 / 128),
        ("+proj=laea +lat_0=90 +lon_0=10", -4e6, 4e6, 8e6 / 128),  # the north pole is in it
        ("+proj=stere +lat_0=-90 +lon_0=0", -3e6, 3e6, 6e6 / 128),
        ("+proj=sinu", -1.2e6, 9e6, 2e4),  # MODIS
        ("EPSG:32633", 2e5, 6e6, 5e3),
        ("EPSG:3035", 2.5e6, 5.5e6, 2.5e4),
        ("EPSG:4326", -180.125, 90.125, 360.25 / 128),
    ],
)
def test_no_pixel_lies_outside_its_footprint(crs: str, left: float, top: float, pixel: float) -> None:
    down = 180.25 / 128 if crs == "EPSG:4326" else pixel
    data = gdal_file(np.ones((1, 128, 128), np.uint8), crs=crs, transform=Affine(pixel, 0, left, 0, -down, top))
    assert pixels_outside(data, [Window(0, 0, 128, 128), *all_windows(32, 128, 128)]) == 0


@pytest.mark.parametrize(
    ("crs", "left", "top", "pixel", "side"),
    [
        ("EPSG:3035", 2.5e6, 5.5e6, 1000.0, 3000),  # Europe: its northern edge is bent by hundreds of pixels
        ("EPSG:3035", 2.5e6, 5.5e6, 30.0, 100_000),  # by so many that the points along it are far apart
        ("EPSG:32633", 1e5, 8.5e6, 100.0, 3000),  # far north: a pixel has four times as many degrees across as down
        ("EPSG:32633", 4e5, 5.5e6, 10.0, 500),
        ("+proj=laea +lat_0=-60 +lon_0=20", -8e5, 8e5, 500.0, 3200),
    ],
)
def test_every_pixel_of_a_bent_edge_lies_in_bounds_and_polygon(
    crs: str, left: float, top: float, pixel: float, side: int
) -> None:
    transform = Affine(pixel, 0, left, 0, -pixel, top)
    size: dict[str, Any] = {"width": side, "height": side, "sparse_ok": True, "tiled": True}
    data = gdal_file(np.zeros((1, 16, 16), np.uint8), crs=crs, transform=transform, **size)
    with rasterio.MemoryFile(data) as file, file.open() as dataset:
        footprint, placement = footprint_of(dataset), placement_of(dataset)
        assert footprint is not None and placement is not None
        along, first, last = np.arange(side) + 0.5, np.full(side, 0.5), np.full(side, side - 0.5)
        xs, ys = np.concatenate([along, along, first, last]), np.concatenate([first, last, along, along])
        lon, lat = placement.place(xs, ys)
    west, south, east, north = footprint.bbox
    assert west <= lon.min() and lon.max() <= east and south <= lat.min() and lat.max() <= north
    assert shapely.contains_xy(shapely.from_wkb(footprint.polygon), lon, lat).all()


def test_a_global_grid_of_centres_on_the_poles_is_clamped() -> None:
    transform = Affine(360.25 / 64, 0, -180.125, 0, -180.25 / 64, 90.125)
    data = gdal_file(np.ones((1, 64, 64), np.uint8), crs="EPSG:4326", transform=transform)
    with rasterio.MemoryFile(data) as file, file.open() as dataset:
        whole, corner = footprint_of(dataset), footprint_of(dataset, Window(0, 0, 16, 16))
    assert whole is not None and whole.bbox == BoundingBox(-180, -90, 180, 90)
    assert corner is not None and corner.bbox.north == 90 and corner.bbox.east == pytest.approx(-90, abs=0.2)


def test_a_raster_of_which_nothing_is_on_earth_has_no_footprint() -> None:
    transform = Affine(1e4, 0, 5.4e6, 0, -1e4, 5.4e6)
    data = gdal_file(np.ones((1, 8, 8), np.uint8), crs="+proj=geos +h=35785831 +lon_0=0 +sweep=y", transform=transform)
    with rasterio.MemoryFile(data) as file, file.open() as dataset:
        assert footprint_of(dataset) is None


def test_control_points_alone_place_a_raster_with_a_note(tmp_path: Path) -> None:
    corners = {(0, 0): (9.5, 47.9), (0, 256): (12.0, 47.5), (256, 0): (9.2, 46.4), (256, 256): (11.6, 46.0)}
    points = [GroundControlPoint(row, col, x, y) for (row, col), (x, y) in corners.items()]
    data = gdal_file(np.full((3, 256, 256), 9, np.uint8), gcps=points, crs="EPSG:4326")
    picture = decode(data, "radar")
    assert picture.footprint is not None and "placed by 4 ground control points" in str(picture.notes)
    assert picture.footprint.bbox == pytest.approx((9.2, 46.0, 12.0, 47.9), abs=0.02)
    assert pixels_outside(data, all_windows(64, 256, 256)) == 0
    (tmp_path / "radar.tif").write_bytes(data)
    cut = survey(str(tmp_path / "radar.tif"), Tiling(64, 0, metres=20_000), PLENTY)
    across, down = cut.tile if cut else (0, 0)
    assert pytest.approx(across, rel=0.2) == 2.5e0 * 256 / 195 * 20 or 20 <= across <= 40
    assert 20 <= down <= 40


def test_rpcs_alone_place_a_raster_with_a_note() -> None:
    linear = [0.0] * 20
    rpc = RPC(
        height_off=500.0, height_scale=500.0, lat_off=48.0, lat_scale=0.1, line_den_coeff=[1.0, *linear[1:]],
        line_num_coeff=[0.0, 0.0, -1.0, *linear[3:]], line_off=128.0, line_scale=128.0, long_off=11.0, long_scale=0.2,
        samp_den_coeff=[1.0, *linear[1:]], samp_num_coeff=[0.0, 1.0, *linear[2:]], samp_off=128.0, samp_scale=128.0,
        err_bias=0.0, err_rand=0.0,
    )  # fmt: skip
    picture = decode(gdal_file(np.full((3, 256, 256), 9, np.uint8), rpcs=rpc), "worldview")
    assert picture.footprint is not None and "placed by RPCs at a height of 500 m, without terrain" in str(
        picture.notes
    )
    assert picture.footprint.bbox == pytest.approx((10.8, 47.9, 11.2, 48.1), abs=0.01)


# 13: what this build of the decoders does not read


@needs_shared
@pytest.mark.parametrize("name", ["jxl.tif", "twelve_bit.jpg"])
def test_what_needs_another_decoder_is_unsupported_and_not_corrupt(name: str) -> None:
    with pytest.raises(ImageError, match=name) as caught:
        read_picture(str(SHARED / "13_kind_of_what_is_not_supported" / name))
    assert caught.value.kind == "unsupported"


def test_a_jpeg_of_twelve_bits_is_unsupported() -> None:
    data = bytearray(pillow_file(Image.fromarray(scene(16, 16)), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12  # the precision in the frame's header
    with pytest.raises(ImageError) as caught:
        decode(bytes(data), "scan")
    assert caught.value.kind == "unsupported"


# 17: tiles of turned scenes


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("big", [False, True])
def test_tiles_are_turned_as_the_whole_image_is(tmp_path: Path, orientation: int, big: bool) -> None:
    samples = scene(64, 96)
    file = tmp_path / "turned.tif"
    image = Image.fromarray(samples)
    image.save(file, "TIFF", tiffinfo={0x0112: orientation}, big_tiff=big)
    whole = read_picture(str(file)).pixels
    tiles = {w: read_picture(str(Tile(str(file), w, Recipe()))) for w in all_windows(32, 96, 64)}
    mosaic = np.zeros_like(samples)
    for window, tile in tiles.items():
        x, y, width, height = window.flatten()
        back = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]  # what undoes it
        mosaic[y : y + height, x : x + width] = stored(tile, back)
    image_info = Image.fromarray(mosaic)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image_info.info["exif"] = exif.tobytes()
    assert np.array_equal(mosaic, samples)
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(image_info)), whole)


def stored(tile: Picture, back: int) -> npt.NDArray[np.uint8]:
    """A tile's pixels as the scene stores them."""
    image, exif = Image.fromarray(tile.pixels), Image.Exif()
    exif[0x0112] = back
    image.info["exif"] = exif.tobytes()
    turned: Image.Image = ImageOps.exif_transpose(image)
    return np.asarray(turned)


# Orientation of photographs, as Pillow finds it


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="%d"/>'
segments = st.lists(
    st.one_of(
        st.integers(1, 8).map(lambda o: segment(0xE1, exif_of(o))),
        st.integers(1, 8).map(lambda o: segment(0xFE, b"a comment with " + exif_of(o))),
        st.integers(1, 8).map(lambda o: segment(0xE1, XMP % o)),
        st.integers(30_000, 60_000).map(lambda n: segment(0xE2, b"ICC" + bytes(n))),
        st.just(segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(segments, st.booleans())
def test_a_photograph_is_turned_as_pillow_turns_it(parts: list[bytes], second: bool) -> None:
    plain = pillow_file(Image.fromarray(scene(17, 31)), "JPEG")
    data = plain[:2] + b"".join(parts) + plain[2:]
    if second:  # a second picture behind the first, as phones write them
        data += plain[:2] + segment(0xE1, exif_of(6)) + plain[2:]
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(decode(data, "photo").pixels, expected)


# JPEGs with more bytes than pixels


@pytest.mark.parametrize("extra", [b"\0" * 100, b"trailer of a camera", bytes(range(1, 200))])
def test_bytes_around_the_end_of_a_jpeg_are_left_out_with_a_note(extra: bytes) -> None:
    data = pillow_file(Image.fromarray(scene(33, 47)), "JPEG")
    whole = decode(data, "photo")
    behind = decode(data + extra, "photo")
    before = decode(data[:-2] + extra + data[-2:], "photo")
    assert np.array_equal(behind.pixels, whole.pixels) and np.array_equal(before.pixels, whole.pixels)
    assert before.notes is not None and "bytes after the pixels" in before.notes


def test_a_jpeg_that_ends_too_early_stays_a_failure() -> None:
    data = pillow_file(Image.fromarray(scene(33, 47)), "JPEG")
    for cut in (len(data) // 2, len(data) - 40):
        with pytest.raises(ImageError) as caught:
            decode(data[:cut], "photo")
        assert caught.value.kind == "corrupt"


# Fill that nobody declares: Landsat's and Sentinel-2's scenes have 0 around them


@pytest.mark.parametrize("bands", [1, 3])
def test_zeros_around_a_16_bit_scene_are_no_samples_of_it(bands: int) -> None:
    samples = np.zeros((bands, 60, 60), np.uint16)
    samples[:, 20:, 20:] = 7000 + 5 * scene(40, 40).transpose(2, 0, 1)[:bands].astype(np.uint16)
    samples[0, 30, 30] = 0  # dark in one band, or a hole
    undeclared, declared = (decode(file, "scene") for file in (gdal_file(samples), gdal_file(samples, nodata=0)))
    assert np.array_equal(undeclared.pixels[20:, 20:], declared.pixels[20:, 20:])
    assert not undeclared.pixels[:20].any()
    black = decode(gdal_file(np.zeros((bands, 8, 8), np.uint16)), "black")
    assert not black.pixels.any()
