"""A tile with what lies around it, against the scene's own pixels."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from rsir_core.errors import ImageError
from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.surroundings import read_surroundings
from rsir_core.imagery.tile_uri import Recipe, Tile

PROFILE = {"driver": "GTiff", "width": 70, "height": 50, "count": 3, "dtype": "uint8"}
rng = np.random.default_rng(0)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[str, np.ndarray]:
    pixels = rng.integers(1, 256, (50, 70, 3), np.uint8)
    path = str(tmp_path / "scene.tif")
    with rasterio.open(
        path, "w", **PROFILE, transform=rasterio.Affine(2, 0, 5e5, 0, -2, 5e6), crs="EPSG:32633"
    ) as file:
        file.write(pixels.transpose(2, 0, 1))
    return path, pixels


@pytest.mark.parametrize(("x", "y"), [(0, 0), (20, 16), (50, 34), (3, 30)])
@pytest.mark.parametrize("around", [0, 0.5, 1.3])
def test_the_tile_is_in_the_middle_and_black_where_the_scene_ends(
    scene: tuple[str, np.ndarray], x: int, y: int, around: float
) -> None:
    path, pixels = scene
    width, height = 20, 16
    across, down = round(around * width), round(around * height)
    expected = np.pad(pixels, [(down, down), (across, across), (0, 0)])
    expected = expected[y : y + height + 2 * down, x : x + width + 2 * across]
    found = read_surroundings(str(Tile(path, Window(x, y, width, height), Recipe())), around).pixels
    np.testing.assert_array_equal(found, expected)


def test_resampling_is_the_tiles(scene: tuple[str, np.ndarray]) -> None:
    path, _ = scene
    uri = str(Tile(path, Window(20, 16, 20, 16), Recipe(size=(10, 8), stretch=(0, 200))))
    found = read_surroundings(uri, 0.5).pixels
    assert found.shape == (16, 20, 3)
    np.testing.assert_array_equal(found[4:12, 5:15], read_picture(uri).pixels)


def test_surroundings_count_towards_the_limit_also_where_the_scene_ends(scene: tuple[str, np.ndarray]) -> None:
    path, pixels = scene
    whole = str(Tile(path, Window(0, 0, 70, 50), Recipe()))  # nothing is around it, but black
    assert read_surroundings(whole, 1, 9 * pixels.shape[0] * pixels.shape[1]).pixels.shape == (150, 210, 3)
    with pytest.raises(ImageError, match=r"31,?500") as refused:
        read_surroundings(whole, 1, 9 * pixels.shape[0] * pixels.shape[1] - 1)
    assert refused.value.kind == "too_large"


def test_an_image_that_is_no_tile_has_none(scene: tuple[str, np.ndarray]) -> None:
    path, _ = scene
    np.testing.assert_array_equal(read_surroundings(path, 1).pixels, read_picture(path).pixels)
