import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsir_core.errors import ImageError
from rsir_core.retrieval.near_duplicates import (
    Pair,
    PictureSignature,
    groups,
    near_pairs,
    same_pictures,
    signature_of,
    signatures_of,
)
from rsir_core.search.distance import NEAR

UC_MERCED = Path(__file__).parents[3] / "shared" / "data" / "ucmerced"


def saved(pixels: np.ndarray, quality: int, share: float = 1.0) -> np.ndarray:
    """The picture as it comes back from a JPEG, perhaps of another size."""
    image, data = Image.fromarray(pixels), io.BytesIO()
    image = image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.BICUBIC)
    image.save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data))


def read(name: str) -> np.ndarray:
    if not UC_MERCED.is_dir():
        pytest.skip("needs ../shared/data/ucmerced")
    return np.asarray(Image.open(UC_MERCED / name))


def test_encoding_and_size_leave_a_picture_the_same_and_another_picture_is_another() -> None:
    names = [f"{c}/{c}{i:02}.jpg" for c in ("agricultural", "chaparral", "forest", "harbor") for i in (3, 4)]
    pictures = [read(name) for name in names]
    looks = {i: signature_of(pixels) for i, pixels in enumerate(pictures)}
    for quality, share in ((95, 1.0), (75, 1.0), (75, 0.8)):
        copies = {100 + i: signature_of(saved(pixels, quality, share)) for i, pixels in enumerate(pictures)}
        every = [(i, j) for i in looks for j in copies]
        found = same_pictures(every, looks | copies)
        assert [(pair.first, pair.second) for pair in found] == [(i, 100 + i) for i in looks]
        assert {pair.kind for pair in found} == {"re-encoded"}
    assert same_pictures([(i, j) for i in looks for j in looks if i < j], looks) == []


def test_the_two_identical_airplanes_are_found() -> None:
    read("airplane/airplane01.jpg")
    found = list(signatures_of([str(UC_MERCED / f"airplane/airplane{i}.jpg") for i in ("01", "02", "03")]))
    looks = {i: look for i, look in enumerate(found) if isinstance(look, PictureSignature)}
    assert same_pictures([(0, 1), (0, 2), (1, 2)], looks) == [Pair(0, 1, "identical", 0.0)]


def test_equal_bytes_of_another_shape_are_another_picture_and_what_cannot_be_read_is_in_no_pair(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    looks = {0: signature_of(pixels), 1: signature_of(pixels.reshape(80, 40, 3)), 3: signature_of(pixels.copy())}
    assert same_pictures([(0, 1), (0, 2), (0, 3), (2, 3)], looks) == [Pair(0, 3, "identical", 0.0)]
    assert isinstance(next(signatures_of([str(tmp_path / "none.png")])), ImageError)


def test_near_pairs_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(1)
    feature = (rng.normal(size=(60, 3)) * 0.2).astype(np.float32)
    gaps = np.linalg.norm(feature[:, None].astype(float) - feature, axis=2)
    expected = [(i, j) for i in range(60) for j in range(i + 1, 60) if gaps[i, j] <= NEAR]
    assert near_pairs(feature) == expected and len(expected) > 20


def test_groups_join_what_any_chain_of_pairs_joins() -> None:
    pairs = [Pair(a, b, "identical", 0.0) for a, b in ((1, 4), (4, 7), (2, 3), (7, 9))]
    assert groups(pairs) == [[1, 4, 7, 9], [2, 3]]
    assert groups([]) == []
