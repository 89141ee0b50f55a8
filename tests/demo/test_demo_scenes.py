"""The demo's scenes: the same seed draws the same scene, and boxes lie where objects are."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial import ConvexHull

from jobs.demo.scenes import CLASSES, OBJECT_CLASSES, SIDE, draw_scene, objects, write_archive, write_boxes
from jobs.demo.scenes.canvas import Canvas, Frame, Point, _swept, circle, corners

GREY = (90, 90, 90)
coordinate = st.floats(-500, 500)


def scene_rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def shadowless(seed: int) -> Canvas:
    canvas = Canvas(scene_rng(seed))
    canvas.sun = (0.0, 0.0)
    canvas.ground(np.broadcast_to(np.float32(1), (SIDE, SIDE, 3)) * np.array(GREY, np.float32))
    return canvas


def drawn(canvas: Canvas) -> npt.NDArray[np.uint8]:
    return np.asarray(canvas._image.reduce(2))


@pytest.mark.parametrize("name", CLASSES)
def test_a_seed_draws_one_scene(name: str) -> None:
    first, again, other = (draw_scene(name, scene_rng(seed)) for seed in (0, 0, 1))
    assert first.pixels.shape == (SIDE, SIDE, 3)
    assert first.pixels.dtype == np.uint8
    assert np.array_equal(first.pixels, again.pixels)
    assert first.boxes == again.boxes
    assert not np.array_equal(first.pixels, other.pixels)
    assert first.pixels.std() > 5


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(KeyError, match="volcano"):
        draw_scene("volcano", scene_rng(0))


@pytest.mark.slow
def test_boxes_lie_inside_and_every_object_occurs() -> None:
    boxes = [b for name in CLASSES for seed in range(4) for b in draw_scene(name, scene_rng(seed)).boxes]
    for box, _ in boxes:
        assert 0 <= box.x0 < box.x1 <= SIDE
        assert 0 <= box.y0 < box.y1 <= SIDE
    assert {name for _, name in boxes} == set(OBJECT_CLASSES)


DRAWINGS: dict[str, Callable[[Canvas, Frame], None]] = {
    objects.AIRPLANE: lambda c, f: objects.airplane(c, f, 90),
    objects.HOUSE: lambda c, f: objects.house(c, f, 60, 36),
    objects.SHIP: lambda c, f: objects.ship(c, f, 70),
    objects.STORAGE_TANK: lambda c, f: objects.storage_tank(c, f, 30),
    objects.TENNIS_COURT: lambda c, f: objects.tennis_court(c, f, 90, (30, 60, 120), (200, 60, 40)),
    objects.BRIDGE: lambda c, f: objects.bridge(c, f, 100, 18),
}


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("seed", range(5))
def test_a_box_bounds_what_was_drawn(name: str, seed: int) -> None:
    canvas = shadowless(seed)
    before = drawn(canvas)
    DRAWINGS[name](canvas, Frame(120, 130, seed * 1.3))
    rows, columns = np.nonzero((drawn(canvas) != before).any(axis=2))
    [(box, found)] = canvas.boxes
    assert found == name
    assert box == pytest.approx((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), abs=2)


def test_an_object_outside_the_image_has_no_box() -> None:
    canvas = shadowless(0)
    for x in (-60, SIDE + 60):
        objects.airplane(canvas, Frame(x, 100), 90)
    assert canvas.boxes == []
    objects.airplane(canvas, Frame(5, 100), 90)  # half of it is inside
    [(box, _)] = canvas.boxes
    assert box.x0 == 0


@given(coordinate, coordinate, st.floats(-7, 7), coordinate, coordinate)
def test_find_is_the_inverse_of_place(x: float, y: float, angle: float, px: float, py: float) -> None:
    frame = Frame(x, y, angle)
    assert frame.find(frame.place([(px, py)])[0]) == pytest.approx((px, py), abs=1e-9)
    assert frame.place([(px, py)])[0] == pytest.approx(frame.at(px, py)[:2], abs=1e-9)


def area(outline: list[Point]) -> float:
    (x, y), (x1, y1) = np.array(outline).T, np.roll(np.array(outline), -1, axis=0).T
    return abs(float(np.sum(x * y1 - x1 * y))) / 2


@given(st.floats(2, 60), st.floats(2, 60), st.floats(0, 7), st.floats(0, 7), st.floats(1, 80), st.booleans())
def test_a_shadow_is_the_hull_of_both_ends(
    length: float, width: float, turn: float, direction: float, reach: float, is_round: bool
) -> None:
    outline = Frame(5, -3, turn).place(circle(length)[:-1] if is_round else corners(length, width))
    shift = (reach * math.cos(direction), reach * math.sin(direction))
    hull = ConvexHull(np.array([*outline, *((x + shift[0], y + shift[1]) for x, y in outline)]))
    assert area(_swept(outline, shift)) == pytest.approx(hull.volume, rel=1e-6)  # `volume` is the area in 2-D


@pytest.mark.slow
def test_the_archive_is_class_folders_of_images(tmp_path: Path) -> None:
    write_archive(tmp_path, per_class=10, seed=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(CLASSES)
    for name in CLASSES:
        assert [f.suffix for f in sorted((tmp_path / name).iterdir())] == [".jpg"] * 9 + [".png"]
    with Image.open(tmp_path / "beach" / "beach009.png") as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), draw_scene("beach", scene_rng(3, CLASSES.index("beach"), 9)).pixels)


@pytest.mark.slow
def test_training_and_validation_have_every_object(tmp_path: Path) -> None:
    write_boxes(tmp_path, count=100, seed=1)
    for part in ("train", "val"):
        lines = [line for file in (tmp_path / "labels" / part).iterdir() for line in file.read_text().splitlines()]
        assert {OBJECT_CLASSES[int(line.split()[0])] for line in lines} == set(OBJECT_CLASSES)


def test_labels_give_the_boxes_back(tmp_path: Path) -> None:
    data = yaml.safe_load(write_boxes(tmp_path / "boxes", count=20, seed=0).read_text())
    root = Path(data["path"])
    assert root.is_absolute()
    assert tuple(data["names"].values()) == OBJECT_CLASSES
    images = {part: sorted((root / data[part]).iterdir()) for part in ("train", "val")}
    assert {part: len(files) for part, files in images.items()} == {"train": 16, "val": 4}
    expected = draw_scene("airport", scene_rng(0, len(CLASSES), 0)).boxes
    numbers = np.loadtxt(root / "labels" / "train" / "00000.txt", ndmin=2)
    assert [OBJECT_CLASSES[int(n)] for n in numbers[:, 0]] == [name for _, name in expected]
    centre, size = numbers[:, 1:3] * SIDE, numbers[:, 3:5] * SIDE
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    assert boxes == pytest.approx(np.array([box for box, _ in expected]), abs=1e-3)
