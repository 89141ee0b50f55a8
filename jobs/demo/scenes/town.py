"""Scenes of what people built: objects on the ground make them."""

import itertools
import math

import numpy as np

from jobs.demo.scenes import objects as draw
from jobs.demo.scenes.canvas import Canvas, Frame, circle
from jobs.demo.scenes.surroundings import open_ground, outside, plot, plots_around, scatter_cars, trees


def airport(canvas: Canvas, middle: Frame) -> None:
    """Draw aircraft in rows on an apron of concrete slabs, beside grass or a terminal."""
    rng = canvas.rng
    slab = canvas.pick(draw.CONCRETE, *draw.SEALED)
    canvas.ground(canvas.blend(draw.shade(slab, 0.93), draw.shade(slab, 1.07)))
    for x in range(-200, 201, 22):  # joints between slabs
        for turn in (0.0, math.pi / 2):
            canvas.line(middle.at(0, 0, turn), [(x, -200), (x, 200)], draw.shade(slab, 0.87), 0.5)
    canvas.line(middle.at(0, rng.uniform(-50, 50)), [(-200, 0), (200, 0)], (200, 164, 60), 1)
    side = middle.at(0, rng.uniform(105, 150))
    if rng.random() < 0.5:
        canvas.rectangle(side.at(0, 40), 420, 100, canvas.pick(*draw.GRASS))
    else:
        draw.building(canvas, side.at(rng.uniform(-40, 40), 20), rng.uniform(120, 260), 46)
    scatter_cars(canvas, middle, int(rng.integers(2, 9)))
    size = rng.choice((42, 70, 105, 150), p=(0.25, 0.3, 0.3, 0.15)) * rng.uniform(0.9, 1.15)
    heading = rng.choice((-math.pi / 2, math.pi / 2, 0.0)) + rng.normal(0, 0.2)
    pitch, rows = size * 1.15, max(1, int(100 // size))
    for row in range(rows):
        for column in range(-int(110 // pitch), int(110 // pitch) + 1):
            if rng.random() < 0.75 or row == column == 0:
                spot = middle.at(column * pitch, (row - (rows - 1) / 2) * pitch - 15, heading + rng.normal(0, 0.06))
                draw.airplane(canvas, spot, size * rng.uniform(0.92, 1.08))


def baseball_diamond(canvas: Canvas, middle: Frame) -> None:
    """Draw one diamond with stands, on mown grass."""
    rng = canvas.rng
    grass = canvas.pick(*draw.GRASS[:4])
    surface = canvas.blend(draw.shade(grass, 0.9), draw.shade(grass, 1.1))
    if rng.random() < 0.5:
        along, _ = middle.grid()
        surface *= (1 + 0.05 * np.sign(np.sin(along / rng.uniform(2.5, 5))))[..., None]
    canvas.ground(surface)
    radius = rng.uniform(36, 100)
    home = middle.at(-radius * rng.uniform(0.4, 0.75), 0)
    if rng.random() < 0.6:
        plots_around(canvas, home.at(radius * 0.8, 0), (radius * 2.4, radius * 2.4))
    if rng.random() < 0.5:
        fence = circle(radius * 1.95, -math.pi / 4, math.pi / 4)
        canvas.line(home, fence, canvas.pick(*draw.SOIL), 7)
        canvas.line(home, circle(radius * 2.02, -math.pi / 4, math.pi / 4), (70, 72, 70), 1)
    draw.baseball_diamond(canvas, home, radius)
    for side in (-1, 1):
        stand = home.at(radius * 0.3, side * radius * 0.78, side * math.pi / 4)
        canvas.rectangle(stand, radius * 0.45, 8, canvas.pick((170, 170, 172), (120, 122, 124)), 4)
    if rng.random() < 0.6:
        draw.road(canvas, home.at(-radius * 0.5 - 20, 0, math.pi / 2), 420, 9, canvas.pick(*draw.SEALED))
    trees(canvas, int(rng.integers(4, 30)), lambda x, y: math.hypot(x - home.x, y - home.y) > radius * 2.05)


def harbor(canvas: Canvas, middle: Frame) -> None:
    """Draw boats at finger piers, sometimes along a quay with parked cars."""
    rng = canvas.rng
    water = canvas.pick(*draw.WATER)
    canvas.ground(canvas.blend(draw.shade(water, 0.9), draw.shade(water, 1.12)) + 3 * canvas.noise(3)[..., None])
    length = rng.uniform(28, 60)
    deck = canvas.pick((176, 170, 156), (150, 140, 124), (190, 188, 184))
    for pier in np.arange(-170, 171, length * 2 + rng.uniform(24, 44)).tolist():
        for x, side in itertools.product(np.arange(-170, 170, length * 0.46).tolist(), (-1, 1)):
            berth = middle.at(x, pier + side * (length * 0.5 + 5), side * math.pi / 2)
            if rng.random() < 0.3:
                canvas.rectangle(berth.at(0, length * 0.23), length, 1.2, deck)
            if rng.random() < 0.78:
                way = math.pi if rng.random() < 0.25 else 0
                draw.ship(canvas, berth.at(0, 0, way + rng.normal(0, 0.03)), length * rng.uniform(0.62, 0.98))
        canvas.rectangle(middle.at(0, pier), 420, 6, deck, 2)
    if rng.random() < 0.5:
        canvas.rectangle(middle.at(200, 0, math.pi / 2), 420, 180, canvas.pick(*draw.SEALED), 5)
        for y in range(-170, 170, 9):
            if rng.random() < 0.5:
                draw.car(canvas, middle.at(124, y))


def intersection(canvas: Canvas, middle: Frame) -> None:
    """Draw two roads crossing, with zebra stripes, traffic, and four plots beside them."""
    rng = canvas.rng
    open_ground(canvas)
    widths: list[float] = rng.choice((15, 22, 30, 46, 60), 2).tolist()
    surface = canvas.pick(*draw.SEALED, draw.ASPHALT)
    cross, zebra = math.pi / 2 + rng.normal(0, 0.12), rng.random() < 0.6
    for sx, sy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        plot(canvas, middle.at(sx * (widths[1] / 2 + 48), sy * (widths[0] / 2 + 44)))
    draw.road(canvas, middle, 460, widths[0], surface)
    draw.road(canvas, middle.at(0, 0, cross), 460, widths[1], surface)
    canvas.rectangle(middle, widths[1] + 4, widths[0] + 4, surface)
    for arm in range(4):
        own, other = widths[arm % 2], widths[1 - arm % 2]
        way = middle.at(0, 0, arm % 2 * cross + arm // 2 * math.pi)
        for y in np.arange(-own / 2 + 3, own / 2 - 1, 4).tolist() if zebra else ():
            canvas.rectangle(way.at(other / 2 + 8, y), 8, 1.8, draw.WHITE)
        for x in np.arange(other / 2 + 24, 180, 19).tolist():
            if rng.random() < 0.35:
                draw.car(canvas, way.at(x + rng.normal(0, 2), own / 4, math.pi))
    on_roads = (widths[1] + 30, widths[0] + 30)
    trees(canvas, int(rng.integers(0, 12)), lambda x, y: min(outside(middle, (x, y), on_roads)) > 0)


def overpass(canvas: Canvas, middle: Frame) -> None:
    """Draw one road over another, wider one, among plots or on open ground."""
    rng = canvas.rng
    open_ground(canvas)
    below, above = float(rng.choice((46, 60, 90))), float(rng.choice((16, 24, 40)))
    if rng.random() < 0.6:
        plots_around(canvas, middle, (above + 40, below + 40))
    trees(canvas, int(rng.integers(0, 30)))
    surface, cross = canvas.pick(*draw.SEALED, draw.ASPHALT), math.pi / 2 + rng.normal(0, 0.25)
    draw.road(canvas, middle, 460, below, surface)
    for x, lane in itertools.product(range(-170, 171, 22), (-0.38, -0.13, 0.13, 0.38)):
        if rng.random() < 0.2:
            draw.car(canvas, middle.at(x + rng.normal(0, 4), lane * below, math.pi * (lane < 0)))
    draw.road(canvas, middle.at(0, 0, cross), 460, above, surface)
    draw.bridge(canvas, middle.at(0, 0, cross), below * 1.3, above)
    for x in range(-170, 171, 24):
        if rng.random() < 0.25:
            draw.car(canvas, middle.at(0, 0, cross).at(x, above / 4))


def parking_lot(canvas: Canvas, middle: Frame) -> None:
    """Draw rows of stalls, more or less full, beside a large building or a park."""
    rng = canvas.rng
    asphalt = canvas.pick(*draw.SEALED)
    canvas.ground(canvas.blend(draw.shade(asphalt, 0.9), draw.shade(asphalt, 1.08)))
    full, slant = rng.uniform(0.35, 0.95), rng.choice((0, 0.25))
    for row in range(-170, 171, 56):
        canvas.line(middle.at(0, row), [(-200, 0), (200, 0)], draw.WHITE, 0.5)
        for x, side in itertools.product(range(-190, 190, 10), (-1, 1)):
            stall = middle.at(x, row + side * 9.5, side * (math.pi / 2 - slant))
            if not stall.seen(20):
                continue
            canvas.line(stall.at(0, 5), [(-9, 0), (9, 0)], (206, 206, 200), 0.5)
            if rng.random() < full:
                draw.car(canvas, stall.at(rng.normal(0, 0.7), 0, math.pi * rng.integers(2)))
            elif rng.random() < 0.05:
                draw.tree(canvas, stall.at(-9 * side, 0), rng.uniform(6, 11))
    if rng.random() < 0.5:
        draw.building(canvas, middle.at(rng.uniform(-60, 60), 140), rng.uniform(120, 300), 70)
    else:
        canvas.rectangle(middle.at(0, 150), 420, 80, canvas.pick(*draw.GRASS))
        trees(canvas, 40, lambda x, y: middle.find((x, y))[1] > 118)


def dense_residential(canvas: Canvas, middle: Frame) -> None:
    """Draw small lots, each with its house, drive and a tree or two."""
    _streets(canvas, middle, canvas.rng.uniform(36, 54), built=0.95)


def sparse_residential(canvas: Canvas, middle: Frame) -> None:
    """Draw large lots, not all of them built on, under many trees."""
    _streets(canvas, middle, canvas.rng.uniform(48, 96), built=canvas.rng.uniform(0.5, 0.85))
    trees(canvas, int(canvas.rng.integers(0, 20)))


def _streets(canvas: Canvas, middle: Frame, lot: float, built: float) -> None:
    """Draw parallel streets with lots of this width on both sides, sometimes with a street across."""
    rng = canvas.rng
    open_ground(canvas)
    depth, street = min(lot, 60) * rng.uniform(0.95, 1.25), canvas.pick(*draw.SEALED)
    for block in (-1, 0, 1):
        way = middle.at(0, block * (2 * depth + 24) + rng.uniform(-4, 4))
        draw.road(canvas, way, 440, 15, street)
        for x, side in itertools.product(np.arange(-190, 190, lot).tolist(), (-1, 1)):
            place = way.at(x, side * (depth * 0.5 + 10), side * math.pi / 2)  # x leads away from the street
            if place.seen(depth):
                _lot(canvas, place, (depth, lot), rng.random() < built)
    if rng.random() < 0.3:
        draw.road(canvas, middle.at(rng.uniform(-60, 60), 0, math.pi / 2), 440, 15, street)


def _lot(canvas: Canvas, frame: Frame, size: tuple[float, float], has_house: bool) -> None:
    rng = canvas.rng
    depth, width = size
    if has_house:
        drive = frame.at(-depth * 0.4, width * 0.3 * (-1) ** rng.integers(2))
        canvas.rectangle(drive, depth * 0.5, 7, canvas.tint(draw.CONCRETE))
        length = min(width * rng.uniform(0.55, 0.72), 44)
        draw.house(canvas, frame.at(0, 0, math.pi / 2), length, min(depth * rng.uniform(0.4, 0.55), 30))
        if rng.random() < 0.35:
            draw.car(canvas, drive)
        if rng.random() < 0.12:
            canvas.disc(frame.at(depth * 0.42, -width * 0.1), 5, (88, 178, 196))
    for _ in range(rng.integers(0, 4 if has_house else 12)):
        garden = frame.at(rng.uniform(0.1, 0.55) * depth, rng.uniform(-0.5, 0.5) * width)
        draw.tree(canvas, garden, rng.uniform(4, 10))


def storage_tanks(canvas: Canvas, middle: Frame) -> None:
    """Draw tanks of one farm, on bare ground, some inside bunds."""
    rng = canvas.rng
    soil = canvas.pick(*draw.SOIL, *draw.SEALED)
    canvas.ground(canvas.blend(draw.shade(soil, 0.85), draw.shade(soil, 1.12)))
    radius = rng.choice((17, 24, 36, 54)) * rng.uniform(0.9, 1.1)
    pitch = radius * rng.uniform(2.5, 3.1)
    bund, full = rng.random() < 0.6, rng.uniform(0.3, 0.9)
    reach = int(rng.integers(1, max(1, 170 // pitch) + 1))
    middle = middle.at(rng.uniform(-0.5, 0.5) * pitch, rng.uniform(-0.5, 0.5) * pitch)
    if rng.random() < 0.7:
        plots_around(canvas, middle, ((2 * reach + 1) * pitch,) * 2)
    draw.road(canvas, middle.at(0, pitch / 2), 440, 9, canvas.pick(*draw.SEALED))
    scatter_cars(canvas, middle, int(rng.integers(0, 7)))
    for row in range(-reach, reach + 1):
        pipe = middle.at(0, row * pitch + radius * 1.12)
        canvas.rectangle(pipe, (2 * reach + 1) * pitch, 1.5, canvas.tint((190, 188, 182)), 1.5)
        for column in range(-reach, reach + 1):
            spot = middle.at(column * pitch, row * pitch)
            if bund:
                canvas.rectangle(spot, pitch * 0.96, pitch * 0.96, draw.shade(soil, 1.12), 2)
                canvas.rectangle(spot, pitch * 0.9, pitch * 0.9, draw.shade(soil, 0.95))
            if rng.random() < full or row == column == 0:
                draw.storage_tank(canvas, spot, radius * rng.uniform(0.75, 1.02))
    if rng.random() < 0.4:
        draw.building(canvas, middle.at(0, rng.choice((-1, 1)) * 115), rng.uniform(70, 200), 40)


def tennis_courts(canvas: Canvas, middle: Frame) -> None:
    """Draw one to eight courts inside their fence, among trees."""
    rng = canvas.rng
    open_ground(canvas)
    length = rng.uniform(50, 110)
    colours = ((62, 104, 82), (52, 84, 128), (158, 82, 62), (84, 118, 84), (112, 122, 116))
    inner, outer = canvas.pick(*colours), canvas.pick(*colours)
    columns, rows = rng.integers(1, 5), rng.integers(1, 3)
    if rng.random() < 0.5:
        draw.road(canvas, middle.at(0, rows * length * 0.55 + 26), 440, 12, canvas.pick(*draw.SEALED))
    if rng.random() < 0.7:
        plots_around(canvas, middle, (columns * length / 2 + 20, rows * length + 20))
    canvas.rectangle(middle, columns * length / 2 + 6, rows * length + 6, draw.shade(outer, 0.7), 4)
    for column, row in itertools.product(range(columns), range(rows)):
        spot = middle.at((column - (columns - 1) / 2) * length / 2, (row - (rows - 1) / 2) * length, math.pi / 2)
        draw.tennis_court(canvas, spot, length, inner, outer)
    block = (columns * length / 2 + 20, rows * length + 20)
    trees(canvas, int(rng.integers(8, 60)), lambda x, y: max(outside(middle, (x, y), block)) > 0)
