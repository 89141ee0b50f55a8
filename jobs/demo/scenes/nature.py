"""Scenes of open country: what covers the ground makes them."""

import math

import numpy as np

from jobs.demo.scenes import objects as draw
from jobs.demo.scenes.canvas import SIDE, Canvas, Frame, rgb
from jobs.demo.scenes.surroundings import trees


def beach(canvas: Canvas, middle: Frame) -> None:
    """Draw sea, surf and sand along a winding shore."""
    rng = canvas.rng
    along, across = middle.grid()
    depth = across + rng.uniform(4, 12) * canvas.noise(90) + 2.5 * canvas.noise(14) + 14 * np.sin(along / 60)
    sea, sand = canvas.pick(*draw.WATER, (58, 112, 118)), canvas.pick((212, 194, 162), (198, 184, 158), (186, 164, 134))
    shallow = canvas.tint((112, 138, 128))
    surf = rng.uniform(6, 40)
    stops = (-160, -surf - 25, -surf, -2, 3, 20, 30)
    colours = np.array([sea, sea, shallow, shallow, draw.shade(sand, 0.72), draw.shade(sand, 0.85), sand])
    surface = np.stack([np.interp(depth, stops, channel) for channel in colours.T], -1).astype(np.float32)
    waves = np.clip(canvas.noise(9) + 0.8 * canvas.noise(3) + 1.6 * np.cos(depth / surf * 5), 0, 2) / 2
    foam = waves * np.clip((depth + surf * 1.3) / 12, 0, 1) * np.clip(-depth / 4, 0, 1)
    surface += foam[..., None] * (rgb((236, 240, 240)) - surface)
    canvas.ground(surface * (1 + 0.02 * canvas.noise(5))[..., None])
    if rng.random() < 0.5:
        for x in range(-190, 190, 13):  # what grows behind it
            draw.tree(canvas, middle.at(x, rng.normal(118, 7)), rng.uniform(4, 10))
    for _ in range(rng.integers(0, 25)):
        spot = middle.at(rng.uniform(-170, 170), rng.uniform(40, 85))
        canvas.disc(spot, 1.6, canvas.pick((200, 50, 50), (40, 80, 160), draw.WHITE, (230, 190, 60)))


def farmland(canvas: Canvas, middle: Frame) -> None:
    """Draw one to nine fields with crop rows, and tracks between them."""
    rng = canvas.rng
    surface = np.empty((SIDE, SIDE, 3), np.float32)
    x, y = middle.grid()
    columns, rows = (sorted(rng.uniform(-110, 110, rng.integers(0, 3)).tolist()) for _ in range(2))
    parcels = np.digitize(x, columns) * 4 + np.digitize(y, rows)
    grain = canvas.noise(40) * 0.05 + canvas.noise(4) * 0.04
    for parcel in np.unique(parcels):
        along, across = middle.at(0, 0, rng.choice((0, math.pi / 2)) + rng.normal(0, 0.02)).grid()
        crop = canvas.pick(*draw.GRASS, *draw.SOIL, (72, 112, 56), (156, 148, 92))
        rows_of_crop = np.sin(across * 2 * math.pi / rng.uniform(4, 12) + 0.15 * canvas.noise(30))
        inside = parcels == parcel
        light = 1 + rng.uniform(0.02, 0.2) * rows_of_crop + grain + 0.03 * np.sin(along / 45)
        surface[inside] = light[inside][:, None] * rgb(crop)
    canvas.ground(surface)
    for cut in rows:
        draw.road(canvas, middle.at(0, cut), 420, rng.uniform(3, 9), canvas.pick(*draw.SOIL))
    for cut in columns:
        draw.road(canvas, middle.at(cut, 0, math.pi / 2), 420, 4, canvas.pick(*draw.SOIL))
    if rng.random() < 0.25:
        draw.house(canvas, middle.at(rng.uniform(-80, 80), rng.uniform(-80, 80)), 44, 24)
    wood = canvas.noise(80)
    trees(canvas, int(rng.integers(0, 10)))
    if rng.random() < 0.35:
        trees(canvas, 250, lambda x, y: bool(wood[_pixel(y), _pixel(x)] > 0.5))


def forest(canvas: Canvas, middle: Frame) -> None:
    """Draw crowns, with gaps and sometimes a trail."""
    rng = canvas.rng
    canvas.ground(canvas.blend(canvas.pick((28, 36, 26), *draw.GRASS), canvas.pick(*draw.SOIL, *draw.GRASS)))
    leaf, radius = canvas.pick(*draw.LEAVES, (92, 96, 62), (36, 58, 40)), rng.uniform(7, 12)
    gap, clearing = canvas.noise(60), rng.uniform(-0.2, 2.5)
    if rng.random() < 0.3:
        canvas.line(middle, [(-200, -20), (-60, 4), (60, -6), (200, 22)], canvas.pick(*draw.SOIL), 5)
    places = np.mgrid[0 : SIDE + 8 : radius * 1.4, 0 : SIDE + 8 : radius * 1.4].reshape(2, -1).T
    for x, y in rng.permutation(places + rng.normal(0, radius * 0.4, places.shape)).tolist():
        if gap[_pixel(y), _pixel(x)] < clearing:
            draw.tree(canvas, Frame(x, y), radius * rng.uniform(0.6, 1.3), leaf)


def river(canvas: Canvas, middle: Frame) -> None:
    """Draw a winding river with wooded banks, sometimes under a bridge."""
    rng = canvas.rng
    along, across = middle.grid()
    phase, bend, width = rng.uniform(0, 6), rng.uniform(6, 34), rng.uniform(9, 62)
    distance = np.abs(across + bend * np.sin(along / 48 + phase)) + 3 * canvas.noise(24) - width / 2
    bank, water = canvas.pick(*draw.SOIL), canvas.pick(*draw.WATER, (98, 96, 76))
    land = canvas.blend(canvas.pick(*draw.GRASS), canvas.pick(*draw.GRASS, *draw.SOIL))
    flow = canvas.blend(draw.shade(water, 0.92), draw.shade(water, 1.1))
    wet, shore = np.clip(-distance / 2, 0, 1)[..., None], np.clip(1 - distance / 9, 0, 1)[..., None]
    land = land + shore * (rgb(bank) - land)
    canvas.ground(land + wet * (flow - land))
    growth = canvas.noise(50)
    trees(
        canvas,
        int(rng.integers(20, 400)),
        lambda x, y: bool(distance[_pixel(y), _pixel(x)] > 4 and growth[_pixel(y), _pixel(x)] > -0.6),
    )
    if rng.random() < 0.45:
        x = rng.uniform(-40, 40)
        crossing = middle.at(x, -bend * math.sin(x / 48 + phase), math.pi / 2 + rng.normal(0, 0.15))
        lane = rng.choice((14, 18, 30))
        for end in (-1, 1):
            draw.road(canvas, crossing.at(end * (width / 2 + 160), 0), 320, lane, draw.ASPHALT)
        draw.bridge(canvas, crossing, width + 16, lane)
    elif rng.random() < 0.3:
        draw.house(canvas, middle.at(rng.uniform(-70, 70), width / 2 + bend + 30), 40, 24)


def _pixel(coordinate: float) -> int:
    return min(max(int(coordinate), 0), SIDE - 1)
