"""One image in any of its forms is the same pixels, or the same refusal."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rsir_core.api.pictures import read_image
from rsir_core.errors import ImageError

RNG = np.random.default_rng(0)
LIMIT = 64 * 48
COLOURS = RNG.integers(0, 256, (48, 64, 4), dtype=np.uint8)
COLOURS[:, :, 3] = np.where(np.arange(64) < 20, 0, 200)
GREY = np.dstack([COLOURS[..., 0], COLOURS[..., 3]])


def saved(pixels: np.ndarray, mode: str, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(data, kind, **options)
    return data.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    "data",
    [
        saved(COLOURS[..., :3], "RGB", "PNG"),
        saved(COLOURS[..., :3], "RGB", "PNG", exif=turned()),
        saved(COLOURS[..., :3], "L", "PNG"),
        saved(COLOURS[..., :3], "P", "GIF"),
        saved(COLOURS, "RGBA", "PNG"),
        saved(GREY, "LA", "PNG"),
        saved(COLOURS, "RGBA", "WEBP", lossless=True, exact=True),
    ],
    ids=["RGB", "turned", "L", "P", "RGBA", "LA", "WebP"],
)
def test_an_opened_image_is_what_its_file_is(data: bytes) -> None:
    by_bytes, opened = read_image(data, LIMIT), read_image(Image.open(io.BytesIO(data)), LIMIT)
    assert np.array_equal(by_bytes.pixels, opened.pixels)
    assert by_bytes.notes == opened.notes
    assert np.array_equal(read_image(opened.pixels, LIMIT).pixels, opened.pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_an_opened_image_of_more_than_8_bits_is_refused_with_the_remedy(dtype: type) -> None:
    image = Image.fromarray(RNG.integers(0, 4000, (48, 64)).astype(dtype))
    with pytest.raises(ImageError, match=rf"{image.mode}.* pass its path or its bytes") as found:
        read_image(image, LIMIT)
    assert found.value.kind == "unsupported"


def test_too_many_pixels_and_missing_ones_are_refused_in_any_form() -> None:
    data = saved(COLOURS[..., :3], "RGB", "PNG")
    for form in (data, Image.open(io.BytesIO(data)), COLOURS[..., :3]):
        with pytest.raises(ImageError, match="3,072 pixels, the limit is 3,071") as found:
            read_image(form, LIMIT - 1)
        assert found.value.kind == "too_large"
    for form in (data[:2000], Image.open(io.BytesIO(data[:2000]))):
        with pytest.raises(ImageError) as found:
            read_image(form, LIMIT)
        assert found.value.kind == "corrupt"
