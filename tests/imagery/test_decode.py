"""Decoding: equal to independent readers where those are right, to its laws elsewhere, ImageError at worst."""

import io
import resource
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps
from rasterio.enums import ColorInterp

from rsir_core.errors import FailureKind, ImageError
from rsir_core.imagery.decode import decode, read_picture
from tests.support.rasters import gdal_file, large_is_slow, pillow_file, scene

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no data in {SHARED}")
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
RGBA = (*RGB, ColorInterp.alpha)

cases = settings(max_examples=40, deadline=None)  # no deadline: the machine may be busy
shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
rgb_pixels = shapes.flatmap(lambda shape: hnp.arrays(np.uint8, (*shape, 3)))


def pixels_of(data: bytes) -> npt.NDArray[np.uint8]:
    picture = decode(data, "photo")
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.ndim == 3
    assert picture.pixels.shape[2] == 3
    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.flags.writeable
    return picture.pixels


def kind_of(data: bytes, max_pixels: int = 1_000_000) -> FailureKind:
    with pytest.raises(ImageError, match="photo") as caught:
        decode(data, "photo", max_pixels)
    assert caught.value.stage == "decode"
    return caught.value.kind


def bands_of(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def lossless(pixels: npt.NDArray[np.uint8]) -> dict[str, bytes]:
    image, bands = Image.fromarray(pixels), bands_of(pixels)
    return {
        "png": pillow_file(image, "PNG"),
        "webp": pillow_file(image, "WEBP", lossless=True),
        "bmp": pillow_file(image, "BMP"),
        "tiff": pillow_file(image, "TIFF", compression="tiff_lzw"),
        "geotiff": gdal_file(bands, compress="deflate", interleave="band", transform=Affine(1, 0, 0, 0, -1, 9)),
        "bigtiff": gdal_file(bands, bigtiff="yes"),
        "jpeg 2000": gdal_file(bands, "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES", YCBCR420="NO"),
    }


@cases
@given(rgb_pixels)
def test_lossless_formats_give_back_what_was_written(pixels: npt.NDArray[np.uint8]) -> None:
    for kind, data in lossless(pixels).items():
        picture = decode(data, kind)
        assert np.array_equal(picture.pixels, pixels), kind
        assert picture.notes is None


@cases
@given(shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape)))
def test_grey_is_three_times_the_same(grey: npt.NDArray[np.uint8]) -> None:
    wanted = np.repeat(grey[..., None], 3, axis=2)
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(pixels_of(pillow_file(Image.fromarray(grey), kind)), wanted)
    assert np.array_equal(pixels_of(gdal_file(grey[None])), wanted)
    assert np.array_equal(pixels_of(gdal_file(255 - grey[None], photometric="miniswhite")), wanted)


@cases
@given(rgb_pixels)
def test_palettes_are_their_colours(pixels: npt.NDArray[np.uint8]) -> None:
    image = Image.fromarray(pixels).quantize(16)
    wanted = np.asarray(image.convert("RGB"))
    for kind in ("PNG", "GIF", "TIFF", "BMP"):
        assert np.array_equal(pixels_of(pillow_file(image, kind)), wanted), kind


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_use_the_whole_range(bits: int) -> None:
    grey = np.arange(2**bits, dtype=np.uint8).reshape(1, 1, -1)
    assert np.array_equal(pixels_of(gdal_file(grey, nbits=bits))[0, :, 0], np.linspace(0, 255, 2**bits))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:1:1"}, {"quality": 5}])
def test_jpeg_equals_pillow(mode: str, options: dict[str, Any]) -> None:
    data = pillow_file(Image.fromarray(scene(47, 63)).convert(mode), "JPEG", **options)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels_of(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(scene(31, 17))
    options = {"lossless": True} if kind == "WEBP" else {}
    plain, turned = pillow_file(image, kind, **options), pillow_file(image, kind, exif=exif.tobytes(), **options)
    exif_image = Image.fromarray(pixels_of(plain))
    exif_image.info["exif"] = exif.tobytes()
    assert np.array_equal(pixels_of(turned), np.asarray(ImageOps.exif_transpose(exif_image)))


def test_broken_exif_turns_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = exif.tobytes()
    for cut in range(len(whole)):
        data = pillow_file(Image.fromarray(scene(31, 17)), "JPEG", exif=whole[:cut] or b"Exif\0\0")
        assert pixels_of(data).shape in {(31, 17, 3), (17, 31, 3)}


samples_of = st.sampled_from(["uint16", "int16", "uint32", "int32", "float32", "float64", "int8"]).map(np.dtype)


@cases
@given(st.data(), samples_of, st.sampled_from([1, 3]))
def test_stretch_keeps_order_and_uses_the_whole_range(data: st.DataObject, dtype: np.dtype[Any], bands: int) -> None:
    elements = hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    samples = data.draw(hnp.arrays(dtype, (bands, 7, 9), elements=elements))
    assume(samples.min() != samples.max())
    picture = decode(gdal_file(samples), "photo")
    assert str(dtype) in (picture.notes or "")
    assert (picture.pixels.min(), picture.pixels.max()) == (0, 255)
    order = np.argsort(samples, axis=None, kind="stable")
    seen = bands_of(picture.pixels)[:bands].reshape(-1)[order]
    assert np.all(np.diff(seen.astype(int)) >= 0)  # over all bands at once: one range for the three


@cases
@given(hnp.arrays(np.int16, (3, 6, 8), elements=st.integers(-300, 300)), st.integers(1, 90), st.integers(-900, 900))
def test_stretch_knows_no_scale_and_no_offset(samples: npt.NDArray[np.int16], scale: int, offset: int) -> None:
    assume(samples.min() != samples.max())
    plain = pixels_of(gdal_file(samples)).astype(int)
    other = pixels_of(gdal_file(samples.astype(np.float64) * scale + offset)).astype(int)
    assert np.abs(plain - other).max() <= 1  # rounding of a half


def test_stretch_is_by_percentiles_2_and_98_of_what_is_valid() -> None:
    samples = np.arange(101, dtype=np.float32).reshape(1, 1, 101) * 100
    wanted = np.rint((np.arange(101.0) - 2).clip(0, 96) / 96 * 255)
    assert np.array_equal(pixels_of(gdal_file(samples))[0, :, 0], wanted)
    invalid = np.array([[[np.nan, np.inf, -np.inf, -9999]]], np.float32)
    padded = np.concatenate([samples, invalid], axis=2)
    assert np.array_equal(pixels_of(gdal_file(padded, nodata=-9999))[0, :, 0], [*wanted, 0, 0, 0, 0])


@pytest.mark.parametrize(("value", "seen"), [(0, 0), (7, 255), (-7, 0)])
def test_samples_that_are_all_alike_still_decode(value: int, seen: int) -> None:
    assert np.all(pixels_of(gdal_file(np.full((3, 4, 5), value, np.int16))) == seen)


def test_a_few_samples_among_many_alike_are_seen() -> None:
    samples = np.zeros((1, 40, 40), np.uint16)
    samples[0, 3, 4] = 9
    assert np.argwhere(pixels_of(gdal_file(samples))[..., 0] == 255).tolist() == [[3, 4]]


def test_large_rasters_are_stretched_from_a_part_of_their_samples() -> None:
    samples = np.random.default_rng(0).normal(1000, 100, (1, 1500, 1500)).astype(np.float32)
    low, high = np.percentile(samples, (2, 98))
    wanted = np.interp(samples[0], (low, high), (0, 255))
    assert np.abs(pixels_of(gdal_file(samples))[..., 0] - wanted).max() < 3
    samples[:] = -1
    samples[0, 7, 9:11] = 3, 4  # so few valid ones that the part may hold none
    assert pixels_of(gdal_file(samples, nodata=-1)).max() == 255


def test_16_bit_png_is_read_as_the_tiff_is() -> None:
    samples = bands_of(scene()).astype(np.uint16) * 200
    tiff = decode(gdal_file(samples), "photo")
    assert np.array_equal(pixels_of(gdal_file(samples, "PNG")), tiff.pixels)
    assert decode(gdal_file(samples, "PNG"), "photo").notes == tiff.notes
    assert np.array_equal(pixels_of(gdal_file(samples, "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")), tiff.pixels)


def test_bands_are_chosen_by_colour_then_by_place() -> None:
    four = np.stack([np.full((4, 5), value, np.uint8) for value in (10, 20, 30, 40)])
    near_infrared = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined)
    unknown = (ColorInterp.gray, *[ColorInterp.undefined] * 3)
    for colours, seen, notes in [
        (near_infrared, (30, 20, 10), "bands 3, 2, 1 of 4"),
        (unknown, (10, 20, 30), "bands 1, 2, 3 of 4"),
        (RGBA, (10, 20, 30), None),
    ]:
        picture = decode(gdal_file(four, colours=colours), "photo")
        assert tuple(picture.pixels[0, 0]) == seen
        assert picture.notes == notes
    two = decode(gdal_file(four[:2]), "photo")
    assert (tuple(two.pixels[0, 0]), two.notes) == ((10, 10, 10), "bands 1 of 2")


def alpha_files(rgb: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8]) -> dict[str, bytes]:
    rgba = np.dstack([rgb, alpha])
    return {
        "PNG": pillow_file(Image.fromarray(rgba), "PNG"),
        "WebP": pillow_file(Image.fromarray(rgba), "WEBP", lossless=True, exact=True),
        "TIFF": gdal_file(bands_of(rgba), colours=RGBA),
    }


def test_alpha_hides_wholly_or_not_at_all() -> None:
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:12], alpha[12:20] = 0, 1
    wanted = scene().copy()
    wanted[:12] = 0
    for data in alpha_files(scene(), alpha).values():
        assert np.array_equal(pixels_of(data), wanted)
        assert decode(data, "photo").notes == "25.0% transparent, made black"
    for data in alpha_files(scene(), np.zeros_like(alpha)).values():
        assert kind_of(data) == "no_data"
    for data in alpha_files(scene(), np.full_like(alpha, 255)).values():
        assert decode(data, "photo").notes is None


def test_nodata_in_8_bits_is_a_colour_unless_there_is_nothing_else() -> None:
    bands = bands_of(scene())
    bands[:, 5, 5] = 255
    assert np.array_equal(pixels_of(gdal_file(bands, nodata=255)), bands.transpose(1, 2, 0))
    assert kind_of(gdal_file(np.full((3, 4, 5), 255, np.uint8), nodata=255)) == "no_data"
    assert kind_of(gdal_file(np.full((1, 4, 5), np.nan, np.float32))) == "no_data"


def test_signalling_nan_is_no_data() -> None:
    samples = np.full((1, 1, 3), np.frombuffer(b"\x01\x00\xa0\x7f", np.float32))
    assert kind_of(gdal_file(samples)) == "no_data"
    samples[0, 0, :2] = 1, 2
    assert pixels_of(gdal_file(samples))[0, :, 0].tolist() == [0, 255, 0]


def test_complex_samples_are_unsupported() -> None:
    assert kind_of(gdal_file(np.ones((1, 4, 5), np.complex64))) == "unsupported"


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_of_several_pages_the_first_is_read_and_said_to_be(kind: str) -> None:
    first, second = (Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (40, 200))
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = decode(pillow_file(first, kind, save_all=True, append_images=[second], **options), "photo")
    assert np.all(picture.pixels == 40)
    assert picture.notes == ("page 1 of 2" if kind == "TIFF" else "first frame")


def valid_files() -> dict[str, bytes]:
    image = Image.fromarray(scene())
    return {
        **lossless(scene()),
        "jpeg": pillow_file(image, "JPEG"),
        "cmyk": pillow_file(image.convert("CMYK"), "JPEG"),
        "gif": pillow_file(image, "GIF"),
        "deep png": gdal_file(bands_of(scene()).astype(np.uint16), "PNG"),
        "jpeg tiff": gdal_file(bands_of(scene()), compress="jpeg", photometric="ycbcr"),
    }


@pytest.mark.parametrize("kind", valid_files())
def test_what_ends_too_early_is_corrupt(kind: str) -> None:
    data = valid_files()[kind]
    for part in (0.3, 0.6, 0.9):
        assert kind_of(data[: int(len(data) * part) - 9]) == "corrupt"


def test_jpegs_that_were_closed_too_early_are_corrupt() -> None:
    data = pillow_file(Image.fromarray(scene(256, 256)), "JPEG", quality=95)
    assert kind_of(data[: len(data) // 2] + b"\xff\xd9") == "corrupt"


@pytest.mark.parametrize("kind", valid_files())
def test_the_pixel_limit_is_exact(kind: str) -> None:
    data = valid_files()[kind]
    assert decode(data, "photo", 48 * 64).pixels.shape == (48, 64, 3)
    assert kind_of(data, 48 * 64 - 1) == "too_large"


def test_what_a_decoder_touches_is_limited_in_bytes() -> None:
    samples = np.arange(16 * 32 * 32).reshape(16, 32, 32) % 251
    assert kind_of(gdal_file(samples.astype(np.float64), interleave="pixel"), 32 * 32) == "too_large"
    for dtype in (np.uint8, np.uint16, np.float32):
        data = gdal_file(samples[:4].astype(dtype), interleave="pixel")
        assert decode(data, "photo", 32 * 32).pixels.shape == (32, 32, 3)


def bombs() -> dict[str, bytes]:
    """Small files that say they are 16,000 pixels wide and high."""
    image, side = Image.new("RGB", (16, 16)), 16_000
    big, little = side.to_bytes(4, "big"), side.to_bytes(4, "little")
    jpeg, png, bmp = (pillow_file(image, kind) for kind in ("JPEG", "PNG", "BMP"))
    gif, webp = pillow_file(image.convert("P"), "GIF"), pillow_file(image, "WEBP", lossless=True)
    jp2 = gdal_file(np.zeros((3, 16, 16), np.uint8), "JP2OpenJPEG").replace(bytes((0, 0, 0, 16)), big)
    tiff = gdal_file(np.zeros((1, 16, 16), np.uint8), tiled=True, blockxsize=16, blockysize=16)
    frame, header = jpeg.index(b"\xff\xc0") + 5, b"IHDR" + 2 * big + png[24:29]
    return {
        "jpeg": jpeg[:frame] + 2 * big[2:] + jpeg[frame + 4 :],
        "png": png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:],
        "bmp": bmp[:18] + 2 * little + bmp[26:],
        "gif": gif[:6] + 2 * little[:2] + gif[10:],
        "webp": webp[:21] + (side - 1 + (side - 1 << 14)).to_bytes(4, "little") + webp[25:],
        "jpeg 2000": jp2,
        "jpeg of many scans": many_scans(jpeg),
        "sparse tiff": gdal_file(np.zeros((1, 1, 1), np.uint8), height=side, width=side, sparse_ok=True),
        "tiff of one tile": tiff_with(tiff_with(tiff, 322, side), 323, side),
        "tiff": tiff_with(tiff_with(tiff, 256, side), 257, side),
    }


def many_scans(jpeg: bytes) -> bytes:
    """A JPEG that is decoded a hundred times over."""
    scan = jpeg.index(b"\xff\xda")
    return jpeg[:scan] + jpeg[scan:-2] * 101 + jpeg[-2:]


def tiff_with(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value in a SHORT tag."""
    entry = data.index(struct.pack("<HHI", tag, 3, 1)) + 8
    return data[:entry] + struct.pack("<I", value) + data[entry + 4 :]


@pytest.mark.parametrize("kind", bombs())
def test_bombs_are_refused_before_memory_is_taken(kind: str) -> None:
    data = bombs()[kind]
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert kind_of(data, 10_000_000) == "too_large"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@cases
@given(st.binary(max_size=300), st.sampled_from([b"", *(data[:40] for data in valid_files().values())]))
def test_random_bytes_are_an_image_error_at_worst(noise: bytes, start: bytes) -> None:
    assert is_read_or_refused(start + noise)


@cases
@given(st.sampled_from(list(valid_files().values())), st.data())
def test_damaged_files_are_an_image_error_at_worst(file: bytes, data: st.DataObject) -> None:
    damaged = bytearray(file)
    for _ in range(data.draw(st.integers(1, 4))):
        near_the_start = st.integers(0, min(len(file), 120) - 1)  # where sizes, types and offsets are
        at = data.draw(near_the_start | st.integers(0, len(file) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    assert is_read_or_refused(bytes(damaged))


def is_read_or_refused(data: bytes) -> bool:
    """Whether a file becomes a picture within its limit, or an error that names it; anything else it raises passes."""
    try:
        picture = decode(data, "photo", 100_000)
    except ImageError as error:
        return error.stage == "decode" and "photo" in str(error)
    height, width, channels = picture.pixels.shape
    return bool(height * width <= 100_000 and channels == 3)


def test_files_are_known_by_content_not_by_name(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(pillow_file(Image.fromarray(scene()), "PNG"))
    assert np.array_equal(read_picture(str(tmp_path / "photo.jpg")).pixels, scene())
    (tmp_path / "notes.jpg").write_bytes(b"no image at all")
    with pytest.raises(ImageError, match="convert it"):
        read_picture(str(tmp_path / "notes.jpg"))


def test_neighbours_are_not_read(tmp_path: Path) -> None:
    tiff = tmp_path / "photo.tif"
    tiff.write_bytes(gdal_file(bands_of(scene())))
    (tmp_path / "photo.tif.msk").write_bytes(gdal_file(np.zeros((1, 48, 64), np.uint8)))
    (tmp_path / "photo.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>3</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    picture = read_picture(str(tiff))
    assert np.array_equal(picture.pixels, scene())
    assert picture.notes is None


def test_bytes_are_limited_by_pixels(tmp_path: Path) -> None:
    (tmp_path / "photo.bmp").write_bytes(pillow_file(Image.fromarray(scene()), "BMP"))
    with pytest.raises(ImageError) as caught:
        read_picture(str(tmp_path / "photo.bmp"), 500)
    assert (caught.value.stage, caught.value.kind) == ("read", "too_large")


# What real and odd files become: a kind, or height, width and a part of the notes.
OUTCOMES: dict[str, FailureKind | tuple[int, int, str | None]] = {
    "geotiff/OSBS_029.tif": (400, 400, None),
    "geotiff/RGB.byte.tif": (718, 791, None),
    "geotiff/RGBA.uint16.tif": (411, 634, "uint16 0 to 10000"),
    "geotiff/all-nodata.tif": "no_data",
    "geotiff/cint16.tif": "unsupported",
    "geotiff/cog_cmap.tif": (8704, 7168, None),
    "geotiff/corrupt.tif": "corrupt",
    "geotiff/float_nan.tif": (2, 3, "float32"),
    "geotiff/mosaic_cog1.tif": (790, 779, "uint16"),
    "geotiff/small-uint16-tile.tif": (256, 256, "uint16 0 to 0"),
    "odd_images/broken_data_stream.png": "corrupt",
    "odd_images/crash-2020-10-test.tif": "corrupt",
    "odd_images/decompression_bomb.gif": "too_large",
    "odd_images/g4-multi.tiff": (4677, 3307, "page 1 of 3"),
    "odd_images/hopper.Lab.tif": (128, 128, "CIELAB"),
    "odd_images/libtiff_segfault.tif": "unsupported",
    "odd_images/multipage.tiff": (10, 10, "page 1 of 3"),
    "odd_images/seek_too_large.tif": "corrupt",
    "odd_images/tiff_16bit_RGB.tiff": (40, 100, "uint16"),
    "odd_images/tiff_strip_cmyk_jpeg.tif": (100, 100, None),
    "odd_images/total-pages-zero.tif": (2156, 1728, "page 1 of 3"),
    "odd_images/truncated_jpeg.jpg": "corrupt",
}


@needs_shared
@pytest.mark.parametrize("name", large_is_slow(OUTCOMES))
def test_shared_files_have_their_outcome(name: str) -> None:
    wanted = OUTCOMES[name]
    if isinstance(wanted, str):
        with pytest.raises(ImageError) as caught:
            read_picture(str(SHARED / name))
        assert caught.value.kind == wanted
        return
    picture = read_picture(str(SHARED / name))
    assert picture.pixels.shape == (*wanted[:2], 3)
    assert (wanted[2] is None) == (picture.notes is None)
    assert (wanted[2] or "") in (picture.notes or "")


@needs_shared
def test_every_shared_file_has_an_outcome() -> None:
    folders = (SHARED / "geotiff", SHARED / "odd_images")
    assert sorted(OUTCOMES) == sorted(f"{folder.name}/{file.name}" for folder in folders for file in folder.iterdir())


@needs_shared
@pytest.mark.parametrize(
    "name",
    large_is_slow(n for n, o in OUTCOMES.items() if o[2] is None or str(o[2]).startswith(("page", "CIELAB"))),
)
def test_8_bit_files_equal_pillow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with Image.open(SHARED / name) as image:
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        lab = image.mode == "LAB"
        rgb = ImageCms.buildTransform(*profiles, "LAB", "RGB").apply(image) if lab else image.convert("RGB")
        step = 1 + image.height // 1000
        theirs = np.asarray(rgb)[::step].astype(int)
    ours = read_picture(str(SHARED / name)).pixels[::step]
    assert np.abs(ours - theirs).max() <= 1  # CMYK is rounded differently


@needs_shared
def test_ucmerced_tiffs_equal_pillow() -> None:
    for file in (SHARED / "ucmerced_tif").rglob("*.tif"):
        with Image.open(file) as image:
            assert np.array_equal(read_picture(str(file)).pixels, np.asarray(image.convert("RGB")))


@pytest.mark.slow
@needs_shared
def test_shared_files_leave_nothing_on_the_terminal() -> None:
    program = """
import logging, pathlib, sys, warnings
warnings.simplefilter("error")
logging.basicConfig(level=logging.INFO)
from rsir_core.errors import ImageError
from rsir_core.imagery.decode import read_picture
for name in sys.argv[1:]:
    try:
        read_picture(name, 20_000_000)
    except ImageError:
        pass
"""
    files = [str(SHARED / name) for name in OUTCOMES]
    run = subprocess.run([sys.executable, "-c", program, *files], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"hello\nhello", "text"),
        ("Größe".encode(), "text"),
        (b"  <!doctype html>", "HTML"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04...", "zip"),
        (b"\x00\x01\x02\x03", "00 01 02 03"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_words(data: bytes, kind: str) -> None:
    with pytest.raises(ImageError, match=f"it looks like .*{kind}") as refused:
        decode(data, "file")
    assert refused.value.kind == "corrupt"
    assert "b'" not in str(refused.value)
