"""Drawn faces: each a pure function of (seed, position), with yaw, smile, glasses, hair and sex to judge by.

All attributes are independent of each other, so that what a direction in z changes can be told apart.
Kept out: expressions, ages and anything else that no experiment asks for.
"""

import colorsys
import math
from dataclasses import dataclass
from typing import ClassVar

from shards.sources.base import Item
from shards.sources.drawn.drawing import Box, Canvas, Colour, Dice, Drawn, blend, shade

MAX_YAW = 40.0
"""Degrees to either side; positive is the picture's right."""

SKINS: tuple[Colour, ...] = ((0.95, 0.80, 0.69), (0.87, 0.68, 0.53), (0.70, 0.49, 0.35), (0.45, 0.30, 0.21))
HAIRS: tuple[tuple[str, Colour], ...] = (
    ("black", (0.09, 0.08, 0.09)),
    ("brown", (0.33, 0.20, 0.11)),
    ("red", (0.62, 0.26, 0.10)),
    ("blond", (0.86, 0.70, 0.36)),
    ("grey", (0.64, 0.64, 0.66)),
)
WHITE: Colour = (0.97, 0.97, 0.97)
RIM: Colour = (0.05, 0.05, 0.30)
"""Of glasses alone, so that a colour detector finds them."""


@dataclass(frozen=True, slots=True)
class Face:
    """What is drawn; lengths in fractions of the side."""

    yaw: float
    smile: float
    glasses: bool
    female: bool
    skin: Colour
    hair: Colour
    ground: Colour
    width: float
    height: float

    def turn(self, across: float) -> float:
        """Where a feature lies that is `across` half-widths right of the nose when seen from ahead."""
        angle = math.radians(self.yaw)
        depth = math.sqrt(max(0.0, 1 - min(1.0, abs(across)) ** 2))
        return 0.5 + self.width * (across * math.cos(angle) + 0.75 * depth * math.sin(angle))


@dataclass(frozen=True)
class Faces(Drawn):
    """`images` faces drawn at `size`; another seed gives other faces."""

    name: ClassVar[str] = "faces"
    classes: tuple[str, ...] = ("male", "female")
    meta_bytes: int = 256

    def item(self, position: int) -> Item:
        """The face at `position`; the label is its sex, the other attributes are in its meta."""
        dice = Dice(self.seed, position)
        yaw, smile = dice.roll(-MAX_YAW, MAX_YAW), dice.roll(-1, 1)
        glasses, female = dice.roll() < 0.5, dice.roll() < 0.5
        hair_name, hair = HAIRS[int(dice.roll() * len(HAIRS))]
        skin_number = int(dice.roll() * len(SKINS))
        ground = colorsys.hsv_to_rgb(dice.roll(), dice.roll(0.1, 0.4), dice.roll(0.55, 0.9))
        face = Face(
            yaw,
            smile,
            glasses,
            female,
            shade(SKINS[skin_number], dice.roll(0.95, 1.04)),
            hair,
            ground,
            dice.roll(0.205, 0.225) * (0.94 if female else 1.0),
            dice.roll(0.285, 0.305),
        )
        canvas = Canvas(self.size, ground)
        _draw(canvas, face)
        meta = {
            "yaw": round(yaw, 2),
            "smile": round(smile, 3),
            "glasses": int(glasses),
            "female": int(female),
            "hair": hair_name,
            "skin": skin_number,
        }
        return Item(f"face-{self.seed}-{position}", canvas.pixels(), int(female), meta)


def _draw(canvas: Canvas, face: Face) -> None:
    _draw_back(canvas, face)
    _draw_head(canvas, face)
    _draw_hair(canvas, face)
    for side in (-1, 1):
        _draw_eye(canvas, face, side)
    _draw_nose(canvas, face)
    _draw_mouth(canvas, face)
    if face.glasses:
        _draw_glasses(canvas, face)


def _round(x: float, y: float, width: float, height: float) -> Box:
    return x - width, y - height, x + width, y + height


def _draw_back(canvas: Canvas, face: Face) -> None:
    """What lies behind the face: long hair, neck, shoulders."""
    back = 0.5 - 0.25 * face.width * math.sin(math.radians(face.yaw))
    if face.female:
        canvas.oval(_round(back, 0.44, face.width * 1.32, 0.36), shade(face.hair, 0.85))
        canvas.box((back - face.width * 1.32, 0.45, back + face.width * 1.32, 0.88), shade(face.hair, 0.85))
    cloth = blend(face.ground, (0.1, 0.1, 0.1), 0.6)
    canvas.oval(_round(0.5, 1.08, 0.42, 0.26), cloth)
    canvas.box((0.5 - face.width * 0.5, 0.65, 0.5 + face.width * 0.5, 0.86), shade(face.skin, 0.8))


def _draw_head(canvas: Canvas, face: Face) -> None:
    for side in (-1, 1):  # the ear that is turned away disappears behind the head
        ear = 0.5 + side * face.width - 0.35 * face.width * math.sin(math.radians(face.yaw))
        canvas.oval(_round(ear, 0.5, 0.035, 0.06), shade(face.skin, 0.86))
    canvas.oval(_round(0.5, 0.48, face.width, face.height), face.skin)
    if not face.female:  # a broad jaw
        jaw = face.width * 0.78
        canvas.box((0.5 - jaw, 0.55, 0.5 + jaw, 0.70), face.skin)
        canvas.oval(_round(0.5, 0.69, jaw, 0.09), face.skin)


def _draw_hair(canvas: Canvas, face: Face) -> None:
    """A cap of hair; its parting turns with the head."""
    top, side = 0.48 - face.height, face.width * 1.06
    canvas.oval((0.5 - side, top - 0.05, 0.5 + side, top + 0.17), face.hair)
    canvas.box((0.5 - side, top + 0.06, 0.5 - side + 0.03, 0.44), face.hair)
    canvas.box((0.5 + side - 0.03, top + 0.06, 0.5 + side, 0.44), face.hair)
    parting = face.turn(0.0)
    canvas.shape([(parting, top + 0.20), (parting - 0.05, top + 0.1), (parting + 0.05, top + 0.1)], face.hair)


def _draw_eye(canvas: Canvas, face: Face, side: int) -> None:
    x, near = face.turn(0.42 * side), math.cos(math.radians(face.yaw - 12 * side))
    canvas.oval(_round(x, 0.46, 0.05 * near, 0.026), WHITE)
    pupil = x + 0.018 * math.sin(math.radians(face.yaw))
    canvas.oval(_round(pupil, 0.46, 0.022 * near, 0.024), (0.12, 0.09, 0.08))
    canvas.box((x - 0.055 * near, 0.405, x + 0.055 * near, 0.42), shade(face.hair, 0.7))


def _draw_nose(canvas: Canvas, face: Face) -> None:
    root, tip = face.turn(0.0), 0.5 + 1.05 * face.width * math.sin(math.radians(face.yaw))
    canvas.shape([(root, 0.46), (tip - 0.035, 0.58), (tip + 0.035, 0.58)], shade(face.skin, 0.8))


def _draw_mouth(canvas: Canvas, face: Face) -> None:
    """A curve through corners and middle: a smile lifts the corners."""
    lips = blend(face.skin, (0.75, 0.12, 0.18), 0.75 if face.female else 0.55)
    upper, lower = [], []
    for step in range(9):
        across = (step - 4) / 4
        y = 0.67 - 0.045 * face.smile * (across * across - 0.5)
        half = 0.016 * (1.15 - across * across)
        upper.append((face.turn(0.45 * across), y - half))
        lower.append((face.turn(0.45 * across), y + half))
    canvas.shape([*upper, *reversed(lower)], lips)


def _draw_glasses(canvas: Canvas, face: Face) -> None:
    left, right = face.turn(-0.42), face.turn(0.42)
    for x, side in ((left, -1), (right, 1)):
        near = math.cos(math.radians(face.yaw - 12 * side))
        wide, high = 0.078 * near, 0.058
        for edge in (
            (x - wide, 0.46 - high, x + wide, 0.46 - high + 0.016),
            (x - wide, 0.46 + high - 0.016, x + wide, 0.46 + high),
            (x - wide, 0.46 - high, x - wide + 0.016, 0.46 + high),
            (x + wide - 0.016, 0.46 - high, x + wide, 0.46 + high),
        ):
            canvas.box(edge, RIM)
    canvas.box((left + 0.06, 0.45, right - 0.06, 0.466), RIM)
