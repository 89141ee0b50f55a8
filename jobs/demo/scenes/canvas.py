"""A canvas for aerial-like scenes seen from straight above: ground, shapes, shadows of one sun, and the camera.

Lengths are pixels of the finished image, about 0.3 m each. Everything random comes from the canvas's generator.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from rsir_core.arrays import Floats, Pixels
from rsir_core.models.regions import Box

SIDE = 256
_OVERSAMPLING = 2  # drawn at twice the size and averaged: smooth edges
_SHADE = (8, 12, 24, 135)  # laid over what is in shadow
_VISIBLE = 0.35  # share of an object's box inside the image from which it counts as visible

Colour = tuple[int, int, int]
Point = tuple[float, float]  # (x, y)

_Y, _X = (np.mgrid[0:SIDE, 0:SIDE] + 0.5).astype(np.float32)


class Frame(NamedTuple):
    """Hold a place to draw at: origin in image pixels and a direction, radians clockwise from the x axis."""

    x: float = SIDE / 2
    y: float = SIDE / 2
    angle: float = 0.0

    def at(self, x: float, y: float, angle: float = 0.0) -> "Frame":
        """Return the frame at (x, y) of this one, turned by `angle` more."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return Frame(self.x + x * cos - y * sin, self.y + x * sin + y * cos, self.angle + angle)

    def place(self, points: Sequence[Point]) -> list[Point]:
        """Map points of this frame to image pixels."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return [(self.x + x * cos - y * sin, self.y + x * sin + y * cos) for x, y in points]

    def find(self, point: Point) -> Point:
        """Map a point of the image to this frame: the inverse of `place`."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = point[0] - self.x, point[1] - self.y
        return x * cos + y * sin, y * cos - x * sin

    def seen(self, reach: float) -> bool:
        """Tell whether anything within `reach` of the origin can be in the image."""
        return -reach < self.x < SIDE + reach and -reach < self.y < SIDE + reach

    def grid(self) -> tuple[Floats, Floats]:
        """Compute every image pixel's (x, y) in this frame, SIDE×SIDE each."""
        cos, sin = np.float32(math.cos(self.angle)), np.float32(math.sin(self.angle))
        x, y = _X - np.float32(self.x), _Y - np.float32(self.y)
        return x * cos + y * sin, y * cos - x * sin


class Canvas:
    """Draw on an image, and keep the boxes of the objects drawn so far."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.boxes: list[tuple[Box, str]] = []
        direction, length = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 1.1)
        self.sun: Point = (math.cos(direction) * length, math.sin(direction) * length)  # shadow of 1 pixel of height
        self._image = Image.new("RGB", (SIDE * _OVERSAMPLING,) * 2)
        self._opaque, self._glaze = ImageDraw.Draw(self._image), ImageDraw.Draw(self._image, "RGBA")

    def noise(self, cell: float) -> Floats:
        """Smooth noise of about unit variance whose blobs are `cell` pixels wide, SIDE×SIDE."""
        if cell <= 1:
            return self.rng.standard_normal((SIDE, SIDE), np.float32)
        n = math.ceil(SIDE / cell) + 1
        coarse = Image.fromarray(self.rng.standard_normal((n, n), np.float32))
        left, top = self.rng.uniform(0, n - SIDE / cell, 2)
        box = (left, top, left + SIDE / cell, top + SIDE / cell)
        return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))

    def blend(self, low: Colour, high: Colour, contrast: float = 0.25) -> Floats:
        """Mix two colours into a natural surface, SIDE×SIDE×3: patches, tufts and grains."""
        mix = 0.5 + contrast * (self.noise(70) + 0.7 * self.noise(16) + 0.6 * self.noise(4))
        share: Floats = np.clip(mix, 0, 1)[..., None]
        return rgb(low) + share * (rgb(high) - rgb(low))

    def ground(self, pixels: Floats) -> None:
        """Cover the canvas with SIDE×SIDE×3 colours in 0..255; what was drawn is gone."""
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        self._image.paste(image.resize(self._image.size, Image.Resampling.NEAREST))

    def tint(self, colour: Colour, spread: float = 10) -> Colour:
        """Vary a colour: a little lighter or darker and a little off in hue."""
        light, *hue = self.rng.normal(0, spread, 4).tolist()
        red, green, blue = (min(255, max(0, round(v + light + h / 3))) for v, h in zip(colour, hue, strict=True))
        return red, green, blue

    def pick(self, *colours: Colour) -> Colour:
        """Choose one of the colours and tint it."""
        return self.tint(colours[self.rng.integers(len(colours))])

    def polygon(self, frame: Frame, points: Sequence[Point], colour: Colour) -> list[Point]:
        """Fill an outline given in the frame; returns it in image pixels."""
        outline = frame.place(points)
        self._opaque.polygon(_magnified(outline), fill=colour)
        return outline

    def rectangle(self, frame: Frame, length: float, width: float, colour: Colour, height: float = 0.0) -> list[Point]:
        """Draw a rectangle along the frame, centred on it; with a height it casts a shadow."""
        points = corners(length, width)
        if height:
            self.shadow(frame.place(points), height)
        return self.polygon(frame, points, colour)

    def disc(self, frame: Frame, radius: float, colour: Colour) -> None:
        """Draw a disc centred on the frame."""
        self._opaque.ellipse(_around(frame, radius), fill=colour)

    def line(self, frame: Frame, points: Sequence[Point], colour: Colour, width: float = 1.0) -> None:
        """Draw a polyline given in the frame, `width` pixels wide (at least half a pixel)."""
        self._opaque.line(_magnified(frame.place(points)), fill=colour, width=max(1, round(width * _OVERSAMPLING)))

    def shadow(self, outline: Sequence[Point], height: float) -> None:
        """Draw the shadow of a convex block with this outline (image pixels, clockwise) standing on the ground."""
        shift = (self.sun[0] * height, self.sun[1] * height)
        self._glaze.polygon(_magnified(_swept(outline, shift)), fill=_SHADE)

    def raised_shadow(self, outline: Sequence[Point], height: float) -> None:
        """Draw the shadow of a flat shape, convex or not, that is held up at `height`: wings."""
        x, y = self.sun[0] * height, self.sun[1] * height
        self._glaze.polygon(_magnified([(px + x, py + y) for px, py in outline]), fill=_SHADE)

    def round_shadow(self, frame: Frame, radius: float, height: float) -> None:
        """Draw the shadow of a disc that is held up at `height`: crowns."""
        shifted = Frame(frame.x + self.sun[0] * height, frame.y + self.sun[1] * height)
        self._glaze.ellipse(_around(shifted, radius), fill=_SHADE)

    def mark(self, outline: Sequence[Point], name: str) -> None:
        """Note an object by its outline in image pixels; one that is mostly outside the image does not count."""
        xs, ys = zip(*outline, strict=True)
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
        box = Box(*(float(min(max(v, 0), SIDE)) for v in (x0, y0, x1, y1)))
        if (box.x1 - box.x0) * (box.y1 - box.y0) > _VISIBLE * (x1 - x0) * (y1 - y0):
            self.boxes.append((box, name))

    def photograph(self) -> Pixels:
        """Render what the camera sees, SIDE×SIDE×3: light and its colour, haze, relief and grain."""
        rng = self.rng
        pixels = np.asarray(self._image.reduce(_OVERSAMPLING), np.float32)
        relief = 1 + 0.03 * self.noise(90) + 0.025 * self.noise(3) + rng.uniform(0.01, 0.035) * self.noise(1)
        warmth = rng.normal(0, 0.03)
        light = np.float32(rng.uniform(0.78, 1.12)) * np.array([1 + warmth, 1, 1 - warmth], np.float32)
        haze = rng.uniform(0, 0.22) ** 1.3
        pixels = (1 - haze) * pixels * relief[..., None] * light + haze * rgb((188, 194, 204))
        seen: Pixels = np.clip(pixels, 0, 255).astype(np.uint8)
        return seen


def rgb(colour: Colour) -> Floats:
    """Convert a colour to 3 floats in 0..255."""
    return np.array(colour, np.float32)


def corners(length: float, width: float) -> list[Point]:
    """List a rectangle's corners about the origin, clockwise as seen (y points down)."""
    x, y = length / 2, width / 2
    return [(-x, -y), (x, -y), (x, y), (-x, y)]


def circle(radius: float, start: float = 0.0, end: float = 2 * math.pi, n: int = 24) -> list[Point]:
    """List points of an arc about the origin, clockwise as seen."""
    return [(radius * math.cos(a), radius * math.sin(a)) for a in np.linspace(start, end, n).tolist()]


def _magnified(outline: Sequence[Point]) -> list[Point]:
    return [(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in outline]


def _around(frame: Frame, radius: float) -> tuple[float, float, float, float]:
    x, y, r = frame.x * _OVERSAMPLING, frame.y * _OVERSAMPLING, radius * _OVERSAMPLING
    return x - r, y - r, x + r, y + r


def _swept(outline: Sequence[Point], shift: Point) -> list[Point]:
    """Outline everything that a convex outline (clockwise as seen) passes over on its way by `shift`."""
    following = [*outline[1:], outline[0]]
    ahead = [  # edges whose outside faces the way
        (y1 - y0) * shift[0] - (x1 - x0) * shift[1] > 0 for (x0, y0), (x1, y1) in zip(outline, following, strict=True)
    ]
    swept = []
    for i, (x, y) in enumerate(outline):
        moved = (x + shift[0], y + shift[1])
        swept.append(moved if ahead[i - 1] else (x, y))
        if ahead[i - 1] != ahead[i]:
            swept.append(moved if ahead[i] else (x, y))
    return swept
