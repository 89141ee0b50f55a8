"""Draw what several classes share: the ground, and what stands around their objects."""

import itertools
import math
from collections.abc import Callable

from jobs.demo.scenes import objects as draw
from jobs.demo.scenes.canvas import SIDE, Canvas, Frame, Point


def trees(canvas: Canvas, count: int, allowed: Callable[[float, float], bool] = lambda x, y: True) -> None:
    """Draw up to `count` trees anywhere in the image where they are allowed."""
    for x, y in canvas.rng.uniform(0, SIDE, (count, 2)).tolist():
        if allowed(x, y):
            draw.tree(canvas, Frame(x, y), canvas.rng.uniform(5, 12))


def open_ground(canvas: Canvas) -> None:
    """Draw grass, dry or green, with bare patches."""
    canvas.ground(canvas.blend(canvas.pick(*draw.GRASS), canvas.pick(*draw.GRASS, *draw.SOIL)))


def plot(canvas: Canvas, frame: Frame) -> None:
    """Draw what stands beside a road or a court: houses, a large building, parked cars, or trees."""
    rng = canvas.rng
    kind = rng.integers(4)
    if kind == 0:
        for x in (-26, 26):
            draw.house(canvas, frame.at(x, rng.normal(0, 4)), 40, 26)
    elif kind == 1:
        draw.building(canvas, frame, 76, 66)
    elif kind == 2:
        canvas.rectangle(frame, 90, 80, canvas.pick(*draw.SEALED))
        for x, y in itertools.product(range(-38, 39, 10), (-26, 0, 26)):
            if rng.random() < 0.6:
                draw.car(canvas, frame.at(x, y, math.pi / 2))
    else:
        for _ in range(rng.integers(3, 14)):
            draw.tree(canvas, frame.at(rng.uniform(-40, 40), rng.uniform(-40, 40)), rng.uniform(5, 11))


def scatter_cars(canvas: Canvas, middle: Frame, count: int) -> None:
    """Draw cars here and there, along the frame."""
    for x, y in canvas.rng.uniform(-115, 115, (count, 2)).tolist():
        draw.car(canvas, middle.at(x, y, math.pi / 2 * canvas.rng.integers(4)))


def outside(frame: Frame, point: Point, size: tuple[float, float]) -> Point:
    """Measure how far a point is beyond a rectangle centred on the frame, along x and y; inside: below 0."""
    x, y = frame.find(point)
    return abs(x) - size[0] / 2, abs(y) - size[1] / 2


def plots_around(canvas: Canvas, middle: Frame, size: tuple[float, float]) -> None:
    """Draw plots in a grid along the frame, outside a rectangle of this size in its middle; some stay open ground."""
    for x, y in itertools.product(range(-192, 193, 96), range(-180, 181, 90)):
        if canvas.rng.random() < 0.75 and max(abs(x) - size[0] / 2 - 48, abs(y) - size[1] / 2 - 44) > 0:
            plot(canvas, middle.at(x, y))
