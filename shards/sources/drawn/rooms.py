"""Drawn bedrooms: each a pure function of (seed, position), the same scene at any size, with its truth.

Every object's box is known, and nothing but a window has the colour of the sky, so that what a network
draws can be judged. All is laid out with the bed on the left; half the rooms are mirrored.
"""

import colorsys
from dataclasses import dataclass
from typing import ClassVar

from shards.sources.base import Item
from shards.sources.drawn.drawing import Box, Canvas, Colour, Dice, Drawn, blend, shade

SKY: Colour = (0.50, 0.80, 0.98)
WHITE: Colour = (0.97, 0.97, 0.96)
LINEN: Colour = (0.96, 0.90, 0.64)
GLOW: Colour = (1.00, 0.87, 0.45)
WOODS: tuple[Colour, ...] = ((0.36, 0.22, 0.13), (0.50, 0.32, 0.18), (0.62, 0.44, 0.27), (0.24, 0.17, 0.14))
FLOORS: tuple[Colour, ...] = ((0.58, 0.42, 0.27), (0.44, 0.31, 0.20), (0.66, 0.54, 0.40), (0.42, 0.40, 0.38))
LAMP_HEIGHT = 0.22
MOST_BLUE = 0.62
"""Of anything but walls and windows: bright blue is the sky's alone."""


@dataclass(frozen=True)
class Rooms(Drawn):
    """`images` rooms drawn at `size`; another seed gives other rooms."""

    name: ClassVar[str] = "rooms"
    classes: tuple[str, ...] = ()
    meta_bytes: int = 512

    def item(self, position: int) -> Item:
        """The room at `position`. Its meta says what is where and in which colours."""
        dice = Dice(self.seed, position)
        bright, mirrored = dice.roll() < 0.5, dice.roll() < 0.5
        wall, floor = _wall_colour(dice, bright=bright), shade(dice.pick(FLOORS), dice.roll(0.85, 1.1))
        canvas = Canvas(self.size, wall, mirrored=mirrored)
        horizon = dice.roll(0.57, 0.65)
        _draw_shell(canvas, dice, wall, floor, horizon)
        bed_x, bed_width = dice.roll(0.27, 0.33), dice.roll(0.38, 0.46)
        lamp_x = bed_x + bed_width / 2 + dice.roll(0.08, 0.11)
        lit, table = dice.roll() < 0.6, dice.pick(WOODS)
        if lit:
            _draw_glow(canvas, wall, horizon, lamp_x)
        boxes = {
            "window": _draw_window(canvas, dice),
            "picture": _draw_picture(canvas, dice, bed_x),
            "rug": _draw_rug(canvas, dice),
            "lamp": _draw_lamp(canvas, table, horizon, lamp_x) if lit else None,
            "bed": _draw_bed(canvas, dice, floor, horizon, (bed_x - bed_width / 2, bed_x + bed_width / 2)),
        }
        meta = {
            "boxes": {name: canvas.place(box) for name, box in boxes.items() if box},
            "wall": _bytes(wall),
            "floor": _bytes(floor),
            "bright": bright,
            "bed_side": "right" if mirrored else "left",
        }
        return Item(f"room-{self.seed}-{position}", canvas.pixels(), None, meta)


def _bytes(colour: Colour) -> list[int]:
    return [round(part * 255) for part in colour]


def _cloth(dice: Dice) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(dice.roll(), dice.roll(0.45, 0.85), dice.roll(0.40, 0.85))
    return red, green, min(blue, MOST_BLUE)


def _wall_colour(dice: Dice, *, bright: bool) -> Colour:
    # Hues from violet over red to green: a bright wall of the other hues would be a sky.
    hue = (0.72 + dice.roll(0.0, 0.66)) % 1.0
    if bright:
        return colorsys.hsv_to_rgb(hue, dice.roll(0.05, 0.32), dice.roll(0.74, 0.93))
    return colorsys.hsv_to_rgb(dice.roll(), dice.roll(0.15, 0.55), dice.roll(0.22, 0.44))


def _draw_shell(canvas: Canvas, dice: Dice, wall: Colour, floor: Colour, horizon: float) -> None:
    """Ceiling, side walls, floor with boards, skirting; the back wall is the canvas itself."""
    left, right, top = dice.roll(0.02, 0.07), 1 - dice.roll(0.06, 0.13), dice.roll(0.03, 0.07)
    canvas.shape([(0, 0), (1, 0), (right, top), (left, top)], blend(wall, WHITE, 0.12))
    canvas.shape([(0, 0), (left, top), (left, horizon), (0, horizon + left)], shade(wall, 0.88))
    corner = horizon + 0.9 * (1 - right)
    canvas.shape([(1, 0), (right, top), (right, horizon), (1, corner)], shade(wall, 0.92))
    canvas.box((left, horizon - 0.025, right, horizon), shade(wall, 0.8))
    ground = [(0, horizon + left), (left, horizon), (right, horizon), (1, corner), (1, 1), (0, 1)]
    canvas.shape(ground, floor)
    for near in (-0.3, 0.1, 0.5, 0.9, 1.3):  # where the gaps between boards meet the lower edge
        far = 0.5 + (near - 0.5) * 0.55
        canvas.shape([(far, horizon), (near - 0.008, 1), (near + 0.008, 1)], shade(floor, 0.86))


def _draw_window(canvas: Canvas, dice: Dice) -> Box | None:
    there, width, height = dice.roll() < 0.5, dice.roll(0.22, 0.30), dice.roll(0.22, 0.29)
    x0, y0 = dice.roll(0.53, 0.86 - width), dice.roll(0.09, 0.14)
    if not there:
        return None
    x1, y1, frame = x0 + width, y0 + height, 0.022
    canvas.box((x0, y0, x1, y1), WHITE)
    middle_x, middle_y, half = (x0 + x1) / 2, (y0 + y1) / 2, 0.009
    for left, right in ((x0 + frame, middle_x - half), (middle_x + half, x1 - frame)):
        canvas.box((left, y0 + frame, right, middle_y - half), SKY)
        canvas.box((left, middle_y + half, right, y1 - frame), shade(SKY, 0.97))
    return x0, y0, x1, y1


def _draw_picture(canvas: Canvas, dice: Dice, bed_x: float) -> Box | None:
    there, width, height = dice.roll() < 0.5, dice.roll(0.15, 0.22), dice.roll(0.11, 0.16)
    x0, y0 = bed_x + dice.roll(-0.05, 0.05) - width / 2, dice.roll(0.12, 0.17)
    wood, ground, hill = dice.pick(WOODS), _cloth(dice), _cloth(dice)
    if not there:
        return None
    x1, y1, frame = x0 + width, y0 + height, 0.02
    canvas.box((x0, y0, x1, y1), wood)
    canvas.box((x0 + frame, y0 + frame, x1 - frame, y1 - frame), blend(ground, LINEN, 0.5))
    foot = y1 - frame
    peak = (x0 + width * 0.45, y0 + height * 0.45)
    canvas.shape([(x0 + frame, foot), peak, (x1 - frame, foot)], hill)
    return x0, y0, x1, y1


def _draw_rug(canvas: Canvas, dice: Dice) -> Box | None:
    there, x, y = dice.roll() < 0.5, dice.roll(0.68, 0.76), dice.roll(0.82, 0.88)
    width, height, cloth = dice.roll(0.34, 0.46), dice.roll(0.12, 0.17), _cloth(dice)
    if not there:
        return None
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    canvas.oval(box, shade(cloth, 0.75))
    canvas.oval((box[0] + 0.03, box[1] + 0.02, box[2] - 0.03, box[3] - 0.02), blend(cloth, LINEN, 0.35))
    return box


def _draw_glow(canvas: Canvas, wall: Colour, horizon: float, x: float) -> None:
    """The lamp's light on the wall, behind all that hangs there."""
    y = horizon - LAMP_HEIGHT + 0.04
    for radius, share in ((0.12, 0.08), (0.095, 0.16), (0.07, 0.26)):
        canvas.oval((x - radius, y - radius, x + radius, y + radius), blend(wall, GLOW, share))


def _draw_lamp(canvas: Canvas, wood: Colour, horizon: float, x: float) -> Box:
    """A lamp on a table beside the bed's head; the box is the lamp's alone."""
    top, table = horizon - LAMP_HEIGHT, horizon - 0.07
    canvas.box((x - 0.06, table, x + 0.06, horizon + 0.06), wood)
    canvas.box((x - 0.06, table, x + 0.06, table + 0.02), blend(wood, GLOW, 0.25))
    canvas.box((x - 0.01, top + 0.08, x + 0.01, table), shade(wood, 0.6))
    canvas.shape([(x - 0.03, top), (x + 0.03, top), (x + 0.055, top + 0.09), (x - 0.055, top + 0.09)], GLOW)
    return x - 0.055, top, x + 0.055, table


def _draw_bed(canvas: Canvas, dice: Dice, floor: Colour, horizon: float, head: tuple[float, float]) -> Box:
    """A bed seen from its foot: headboard, linen, pillows, blanket with a turned-down edge."""
    wood, cloth, spread = dice.pick(WOODS), _cloth(dice), dice.roll(1.12, 1.25)
    head_top, foot, front = horizon - dice.roll(0.13, 0.18), dice.roll(0.88, 0.94), dice.roll(0.13, 0.17)
    back, edge = horizon - 0.03, foot - front
    left, right = head
    near = [0.5 + (x - 0.5) * spread for x in head]

    def across(depth: float) -> tuple[float, float, float]:
        """Left and right end, and height, of a line across the bed; 0 is the head, 1 the foot."""
        y = back + (edge - back) * depth
        return left + (near[0] - left) * depth, right + (near[1] - right) * depth, y

    def strip(start: float, stop: float, colour: Colour) -> None:
        (a, b, y0), (c, d, y1) = across(start), across(stop)
        canvas.shape([(a, y0), (b, y0), (d, y1), (c, y1)], colour)

    canvas.shape(
        [(right, horizon), (near[1] + 0.05, foot), (near[0], foot + 0.02), (left, horizon)], shade(floor, 0.6)
    )
    canvas.box((left - 0.01, head_top, right + 0.01, horizon + 0.02), wood)
    canvas.box((left + 0.02, head_top + 0.025, right - 0.02, back), shade(wood, 1.25))
    canvas.shape(
        [(right, back), (near[1], edge), (near[1], foot), (right, horizon + 0.03)], shade(cloth, 0.62)
    )
    canvas.box((near[0], edge, near[1], foot), shade(cloth, 0.8))
    strip(0, 0.5, shade(LINEN, 0.93))
    strip(0.45, 1, cloth)
    strip(0.38, 0.52, blend(cloth, LINEN, 0.45))
    _draw_pillows(canvas, left, right, back)
    return min(left - 0.01, near[0]), head_top, max(right + 0.01, near[1]), foot


def _draw_pillows(canvas: Canvas, left: float, right: float, back: float) -> None:
    width = (right - left) * 0.42
    for x in (left + (right - left) * 0.05, right - (right - left) * 0.05 - width):
        canvas.oval((x, back - 0.045, x + width, back + 0.055), shade(LINEN, 0.8))
        canvas.oval((x + 0.008, back - 0.05, x + width - 0.008, back + 0.04), LINEN)
