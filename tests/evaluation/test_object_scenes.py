"""Mosaics that hold an object, and the scores of images by the nearest pair of their regions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsir_core.models.regions import TAU, Box
from tests.benchmarks.objects import score_regions, tau_of
from tests.support.object_scenes import TILE, ObjectScene, make_mosaics


def test_a_mosaic_shows_its_object_in_its_box_and_each_object_is_used_once(tmp_path: Path) -> None:
    def saved(name: str, red: int) -> str:
        Image.new("RGB", (20, 30), (red, 0, 0)).save(tmp_path / name)
        return str(tmp_path / name)

    objects = {"tank": [saved(f"t{i}.png", 100 + i) for i in range(4)], "ship": [saved("s.png", 200)]}
    backgrounds = [saved(f"b{i}.png", i) for i in range(9)]
    scenes = make_mosaics(objects, backgrounds, 3, 3, seed=1)
    assert [scene.label for scene in scenes] == ["tank"] * 3 + ["ship"]
    shown = []
    for pixels, _, (box,) in scenes:
        assert pixels.shape == (3 * TILE, 3 * TILE, 3)
        x, y = int(box.x0), int(box.y0)
        tile = pixels[y : y + TILE, x : x + TILE, 0]
        assert tile.min() == tile.max() >= 100
        assert (pixels[..., 0] >= 100).sum() == TILE**2
        assert len(np.unique(pixels[..., 0])) == 9
        shown.append(tile[0, 0])
    assert len(set(shown)) == 4


@pytest.mark.parametrize("weighted", [True, False])
def test_images_are_compared_by_their_nearest_pair_of_regions(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 6)).astype(np.float32), rng.dirichlet(np.ones(4), 30).astype(np.float32)
    labels = [f"{i % 3}" for i in range(30)]
    alone = score_regions(rows, range(30), labels, weighted)
    twice = np.repeat(np.arange(30), 2)
    assert score_regions((rows[0][twice], rows[1][twice]), twice.tolist(), labels, weighted) == alone
    # With regions that are one class's alone and the same in all of its images, nothing else is ever nearer.
    one = [np.concatenate([part, np.repeat(part[:3], 10, axis=0)]) for part in rows]
    image = [*range(30), *(c + 3 * i for c in range(3) for i in range(10))]
    order = np.argsort(image, kind="stable")
    assert score_regions((one[0][order], one[1][order]), sorted(image), labels, weighted)[0] == 100


def test_a_key_region_follows_its_object_but_not_below_the_scale_of_training_images() -> None:
    scene = ObjectScene(np.zeros((500, 1000, 3), np.uint8), "", [])
    assert tau_of("object", scene, Box(100, 100, 350, 200), 400) == pytest.approx(1.2 * 0.25)
    assert tau_of("object", scene, Box(100, 100, 110, 110), 400) == pytest.approx(0.2, rel=1e-2)
    assert tau_of("scale", scene, Box(100, 100, 110, 110), 400) == pytest.approx(TAU * 0.4)
    assert tau_of("scale", scene, Box(0, 0, 900, 400), 400) == tau_of("scale", scene, None, 400) == TAU
    assert tau_of(0.35, scene, None, 400) == 0.35
