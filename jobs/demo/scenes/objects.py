"""Draw the objects of the demo's scenes. Each function draws one thing at a frame, along its x axis."""

import math

from jobs.demo.scenes.canvas import Canvas, Colour, Frame, Point, circle, corners

AIRPLANE, BASEBALL_DIAMOND, BRIDGE, HOUSE = "airplane", "baseball_diamond", "bridge", "house"
SHIP, STORAGE_TANK, TENNIS_COURT = "ship", "storage_tank", "tennis_court"
OBJECT_CLASSES = (AIRPLANE, BASEBALL_DIAMOND, BRIDGE, HOUSE, SHIP, STORAGE_TANK, TENNIS_COURT)

WHITE: Colour = (226, 226, 222)
ASPHALT: Colour = (92, 92, 94)
CONCRETE: Colour = (168, 163, 152)
LEAVES: tuple[Colour, ...] = ((44, 66, 38), (58, 78, 44), (70, 84, 50), (52, 72, 52))
GRASS: tuple[Colour, ...] = ((92, 110, 66), (112, 120, 78), (132, 128, 90), (78, 104, 60), (138, 124, 96))
SOIL: tuple[Colour, ...] = ((168, 146, 116), (142, 116, 92), (190, 172, 144), (150, 138, 122), (120, 106, 84))
WATER: tuple[Colour, ...] = ((34, 58, 66), (44, 74, 78), (30, 44, 50), (70, 84, 70), (40, 66, 88))
SEALED: tuple[Colour, ...] = ((104, 104, 106), (128, 124, 120), (150, 146, 138), (84, 86, 90))
_ROOFS: tuple[Colour, ...] = ((150, 92, 70), (128, 124, 120), (98, 90, 86), (172, 158, 138), (182, 184, 186))
_CARS: tuple[Colour, ...] = (
    *((230, 230, 230), (200, 202, 205), (30, 32, 36), (70, 72, 78), (120, 124, 130)),
    *((150, 30, 28), (34, 58, 110), (196, 188, 170)),
)


def shade(colour: Colour, factor: float) -> Colour:
    """Make a colour lighter (factor above 1) or darker."""
    red, green, blue = (min(255, max(0, round(v * factor))) for v in colour)
    return red, green, blue


def airplane(canvas: Canvas, frame: Frame, length: float) -> None:
    """Draw an airliner, nose to the right: swept wings, tail plane, engines."""
    rng = canvas.rng
    span, sweep, body = rng.uniform(0.44, 0.52), rng.uniform(0.14, 0.24), rng.uniform(0.045, 0.06)
    half: list[Point] = [
        *((0.5, 0), (0.47, body * 0.6), (0.42, body), (0.12, body), (0.12 - sweep, span), (0.06 - sweep, span)),
        *((-0.07, body), (-0.32, body * 0.8), (-0.44, 0.18), (-0.49, 0.18), (-0.45, 0.015), (-0.5, 0)),
    ]
    points = _scaled([*half, *((x, -y) for x, y in half[::-1])], length, length)
    paint = canvas.pick(WHITE, (206, 208, 212), (190, 194, 200), (222, 214, 190))
    canvas.raised_shadow(frame.place(points), length * 0.1)
    outline = canvas.polygon(frame, points, shade(paint, 0.9))
    for side in (-1, 1):
        for reach in (0.16, 0.3)[: 1 + (length > 90)]:
            engine = frame.at(length * (0.1 - sweep * reach / span), side * length * reach)
            canvas.rectangle(engine, length * 0.08, length * 0.035, shade(paint, 0.6))
    spine = [(0.48, 0), (0.4, body * 0.5), (-0.46, body * 0.5), (-0.46, -body * 0.5), (0.4, -body * 0.5)]
    canvas.polygon(frame, _scaled(spine, length, length), paint)
    livery = canvas.pick((40, 60, 130), (150, 36, 40), (224, 178, 50), (70, 74, 80), WHITE)
    canvas.rectangle(frame.at(-0.42 * length, 0), 0.19 * length, 0.024 * length, livery)
    canvas.mark(outline, AIRPLANE)


def ship(canvas: Canvas, frame: Frame, length: float) -> None:
    """Draw a motor boat or yacht, bow to the right."""
    if not frame.seen(length):
        return
    rng = canvas.rng
    beam = length * rng.uniform(0.26, 0.36)
    bow = [(0.5, 0), (0.38, 0.22), (0.18, 0.42), (-0.1, 0.5), (-0.46, 0.46), (-0.5, 0.36)]
    points = _scaled([*bow, *((x, -y) for x, y in bow[:0:-1])], length, beam)
    canvas.shadow(frame.place(points), length * 0.12)
    hull = canvas.pick(WHITE, WHITE, (214, 216, 220), (206, 196, 176), (60, 78, 112))
    outline = canvas.polygon(frame, points, hull)
    canvas.polygon(frame, _scaled(points, 0.82, 0.72), canvas.pick(shade(hull, 0.85), (176, 150, 112), (200, 200, 196)))
    cabin = frame.at(length * rng.uniform(-0.12, 0.1), 0)
    canvas.rectangle(cabin, length * rng.uniform(0.22, 0.4), beam * 0.6, canvas.tint(WHITE), 2)
    if rng.random() < 0.4:
        canvas.rectangle(
            frame.at(-length * 0.28, 0), length * 0.24, beam * 0.7, canvas.pick((44, 72, 128), (90, 90, 94))
        )
    canvas.mark(outline, SHIP)


def storage_tank(canvas: Canvas, frame: Frame, radius: float) -> None:
    """Draw a tank with a cone roof, or a floating roof that lies in the shadow of its own wall."""
    if not frame.seen(2 * radius):
        return
    rng = canvas.rng
    height = radius * rng.uniform(0.4, 0.9)
    outline = frame.place(circle(radius))
    canvas.shadow(outline[:-1], height)
    paint = canvas.pick(WHITE, WHITE, (206, 200, 186), (176, 178, 178), (156, 128, 104))
    canvas.disc(frame, radius, shade(paint, 0.8))
    canvas.disc(frame, radius * 0.94, paint)
    if rng.random() < 0.45:
        x, y = canvas.sun
        canvas.disc(frame, radius * 0.9, shade(paint, 0.45))
        canvas.disc(Frame(frame.x + x * radius * 0.2, frame.y + y * radius * 0.2), radius * 0.76, shade(paint, 0.8))
    else:
        light = math.atan2(-canvas.sun[1], -canvas.sun[0])
        for turn in (-1.2, -0.6, 0.0, 0.6):  # facets of the cone towards the sun are brighter
            facet = [(0.0, 0.0), *circle(radius * 0.92, turn, turn + 0.6, 6)]
            canvas.polygon(Frame(frame.x, frame.y, light), facet, shade(paint, 1.1 - 0.06 * abs(turn + 0.3)))
        canvas.disc(frame, radius * 0.08, shade(paint, 0.7))
    canvas.line(frame, circle(radius * 0.97, 0.3, 1.1, 8), shade(paint, 0.55), 1)  # the stairs
    canvas.mark(outline, STORAGE_TANK)


def tennis_court(canvas: Canvas, frame: Frame, length: float, inner: Colour, outer: Colour) -> None:
    """Draw one court (78 × 36 feet) with its run-off, lines and net; `length` is that of the run-off."""
    unit = length / 120  # a foot
    outline = canvas.rectangle(frame, 120 * unit, 60 * unit, outer)
    canvas.rectangle(frame, 78 * unit, 36 * unit, inner)
    width = max(0.6, unit * 0.9)
    for box in (corners(78, 36), corners(78, 27), corners(42, 27)):
        canvas.line(frame, _scaled([*box, box[0]], unit, unit), WHITE, width)
    canvas.line(frame, [(-21 * unit, 0), (21 * unit, 0)], WHITE, width)
    canvas.line(frame, [(0, -20 * unit), (0, 20 * unit)], (60, 62, 66), 1)
    canvas.mark(outline, TENNIS_COURT)


def baseball_diamond(canvas: Canvas, frame: Frame, radius: float) -> None:
    """Draw a baseball diamond, home plate at the frame, opening to the right: infield, bases, mound, chalk."""
    rng = canvas.rng
    dirt = canvas.pick((168, 124, 88), (190, 156, 116), (150, 104, 74), (196, 176, 146))
    side = radius * 0.62  # between bases
    quarter = math.pi / 4
    outline = canvas.polygon(frame, [(-radius * 0.12, 0), *circle(radius * 1.02, -quarter, quarter)], dirt)
    canvas.disc(frame, radius * 0.16, dirt)
    if rng.random() < 0.75:
        corner, gap = side * math.sqrt(0.5), radius * 0.06
        inner = [(gap * 1.4, 0), (corner, gap - corner), (2 * corner - gap, 0), (corner, corner - gap)]
        canvas.polygon(frame, inner, canvas.pick((84, 112, 58), (70, 104, 56), (108, 122, 72)))
        canvas.disc(frame.at(side * 0.7, 0), radius * 0.07, dirt)
    for x, y in ((0, 0), (1, 0), (1, 1), (0, 1)):
        canvas.rectangle(frame.at(0, 0, -quarter).at(x * side, y * side), 2.2, 2.2, WHITE)
    for angle in (-quarter, quarter):
        canvas.line(frame.at(0, 0, angle), [(0, 0), (radius * 1.9, 0)], (214, 206, 190), 0.6)
    canvas.mark(outline, BASEBALL_DIAMOND)


def house(canvas: Canvas, frame: Frame, length: float, width: float) -> None:
    """Draw a house under a gabled or hipped roof, sometimes with a wing across."""
    if not frame.seen(length):
        return
    rng = canvas.rng
    paint = canvas.pick(*_ROOFS)
    hip = width * 0.5 * rng.integers(2)
    outline = frame.place(corners(length, width))
    if rng.random() < 0.4:
        wing = frame.at(length * 0.22 * rng.choice((-1, 1)), width * 0.45, math.pi / 2)
        _roof(canvas, wing, (width * 0.95, length * 0.42), paint, hip * 0.6)
        outline += wing.place(corners(width * 0.95, length * 0.42))
    _roof(canvas, frame, (length, width), paint, hip)
    canvas.mark(outline, HOUSE)


def _roof(canvas: Canvas, frame: Frame, size: tuple[float, float], paint: Colour, hip: float) -> None:
    length, width = size
    canvas.shadow(frame.place(corners(length, width)), 7)
    x, y, ridge = length / 2, width / 2, length / 2 - hip
    sides = {
        math.pi / 2: [(-x, y), (-ridge, 0), (ridge, 0), (x, y)],
        -math.pi / 2: [(-x, -y), (-ridge, 0), (ridge, 0), (x, -y)],
        0.0: [(x, -y), (ridge, 0), (x, y)],
        math.pi: [(-x, -y), (-ridge, 0), (-x, y)],
    }
    to_sun = math.atan2(-canvas.sun[1], -canvas.sun[0])
    for facing, points in sides.items():
        canvas.polygon(frame, points, shade(paint, 1 + 0.22 * math.cos(frame.angle + facing - to_sun)))


def building(canvas: Canvas, frame: Frame, length: float, width: float) -> None:
    """Draw a large flat roof with its parapet and machines."""
    rng = canvas.rng
    paint = canvas.pick((190, 186, 178), (160, 160, 160), (206, 206, 204), (140, 130, 120))
    canvas.rectangle(frame, length, width, shade(paint, 0.75), 14)
    canvas.rectangle(frame, length - 3, width - 3, paint)
    for _ in range(rng.integers(2, 6)):
        spot = frame.at(length * rng.uniform(-0.4, 0.4), width * rng.uniform(-0.35, 0.35))
        canvas.rectangle(spot, rng.uniform(3, 8), rng.uniform(3, 8), canvas.tint((150, 152, 154), 20), 3)


def car(canvas: Canvas, frame: Frame) -> None:
    """Draw a car, 4.5 m long; sometimes a van or a truck."""
    if not frame.seen(20):
        return
    rng = canvas.rng
    length, width = rng.normal(14, 0.8), 6.2
    if rng.random() < 0.06:
        length, width = rng.uniform(20, 32), 7.5
    paint = canvas.pick(*_CARS)
    canvas.rectangle(frame, length, width, paint, 3.5)
    canvas.rectangle(frame.at(length * 0.16, 0), length * 0.14, width * 0.8, (36, 42, 50))
    canvas.rectangle(frame.at(-length * 0.3, 0), length * 0.1, width * 0.76, (36, 42, 50))


def tree(canvas: Canvas, frame: Frame, radius: float, leaf: Colour | None = None) -> None:
    """Draw a tree's crown: dark at its rim, lit towards the sun, with a shadow beside it."""
    if not frame.seen(radius * 2):
        return
    leaf = canvas.tint(leaf, 7) if leaf else canvas.pick(*LEAVES)
    canvas.round_shadow(frame, radius, radius * 0.8)
    canvas.disc(frame, radius, leaf)
    x, y = canvas.sun
    for turn in canvas.rng.uniform(0, 2 * math.pi, 2).tolist():  # boughs, so that crowns are not discs
        cos, sin = math.cos(turn), math.sin(turn)
        light = 1.25 if cos * x + sin * y < 0 else 0.85
        canvas.disc(Frame(frame.x + radius * 0.7 * cos, frame.y + radius * 0.7 * sin), radius * 0.4, shade(leaf, light))
    canvas.disc(Frame(frame.x - x * radius * 0.3, frame.y - y * radius * 0.3), radius * 0.6, shade(leaf, 1.22))


def road(canvas: Canvas, frame: Frame, length: float, width: float, surface: Colour = ASPHALT) -> None:
    """Draw a straight road along the frame: shoulders, edge lines, and a centre line where it is wide enough."""
    canvas.rectangle(frame, length, width + 4, shade(surface, 1.25))
    canvas.rectangle(frame, length, width, surface)
    if width < 16:
        return
    for side in (-1, 1):
        canvas.line(
            frame, [(-length / 2, side * (width / 2 - 1.5)), (length / 2, side * (width / 2 - 1.5))], WHITE, 0.5
        )
    if width > 30:
        for x in range(-round(length / 2), round(length / 2), 18):
            for y in (-width / 4, width / 4):
                canvas.line(frame, [(x, y), (x + 7, y)], WHITE, 0.5)
    canvas.line(frame, [(-length / 2, 0), (length / 2, 0)], (196, 170, 90), 1)


def bridge(canvas: Canvas, frame: Frame, length: float, width: float) -> None:
    """Draw a road bridge along the frame: deck, parapets, shadow on the water."""
    outline = canvas.rectangle(frame, length, width + 5, canvas.tint(CONCRETE), 16)
    road(canvas, frame, length, width, canvas.pick(ASPHALT, (120, 118, 114)))
    canvas.mark(outline, BRIDGE)


def _scaled(points: list[Point], x_scale: float, y_scale: float) -> list[Point]:
    return [(x * x_scale, y * y_scale) for x, y in points]
