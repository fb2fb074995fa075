"""Drawing that is the same on every machine: dice without hidden state, and a canvas in fractions.

Kept out: what is drawn, and numpy's random streams, which may change between releases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shards.errors import ShardsError

Colour = tuple[float, float, float]
"""Red, green, blue in [0, 1]."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in fractions of the side."""

MASK = 2**64 - 1


@dataclass(frozen=True)
class Drawn:
    """What drawn sources have in common: `images` pictures at `size`, other ones for another seed."""

    name: ClassVar[str]

    images: int
    size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ShardsError(f"images={self.images} draws nothing; give 1 or more")
        if not 0 <= self.seed < 2**63:
            raise ShardsError(f"seed={self.seed} is outside [0, 2**63); give one inside")

    @property
    def samples(self) -> int:
        """The number of pictures."""
        return self.images

    def settings(self) -> dict[str, Any]:
        """What tells this source from another."""
        return {"source": self.name, "images": self.images, "seed": self.seed}


class Dice:
    """Numbers in [0, 1) from splitmix64, whose state is a hash of (seed, position)."""

    def __init__(self, seed: int, position: int) -> None:
        self._state = _mix(_mix(seed & MASK) ^ (position & MASK))

    def roll(self, low: float = 0.0, high: float = 1.0) -> float:
        """The next number in [low, high)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & MASK
        return low + (high - low) * ((_mix(self._state) >> 11) / 2**53)

    def pick(self, colours: Sequence[Colour]) -> Colour:
        """One of `colours`."""
        return colours[int(self.roll() * len(colours))]


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


class Canvas:
    """A square to draw on in fractions of its side, several times finer than the picture it becomes.

    `mirrored` swaps left and right of all that is drawn.
    """

    def __init__(self, size: int, ground: Colour, *, mirrored: bool = False) -> None:
        self._size, self._mirrored = size, mirrored
        self._side = size * max(1, min(4, 1024 // size))
        self._image = Image.new("RGB", (self._side, self._side), _ink(ground))
        self._draw = ImageDraw.Draw(self._image)

    def box(self, box: Box, colour: Colour) -> None:
        """A filled rectangle."""
        x0, y0, x1, y1 = self._edges(box)
        if x0 < x1 and y0 < y1:
            self._draw.rectangle((x0, y0, x1 - 1, y1 - 1), _ink(colour))

    def shape(self, corners: Sequence[tuple[float, float]], colour: Colour) -> None:
        """A filled polygon."""
        side, mirrored = self._side, self._mirrored
        points = [(round((1 - x if mirrored else x) * side), round(y * side)) for x, y in corners]
        self._draw.polygon(points, _ink(colour))

    def oval(self, box: Box, colour: Colour) -> None:
        """A filled ellipse."""
        x0, y0, x1, y1 = self._edges(box)
        if x0 < x1 and y0 < y1:
            self._draw.ellipse((x0, y0, x1 - 1, y1 - 1), _ink(colour))

    def place(self, box: Box) -> list[float]:
        """Where `box` lies in the picture: fractions of the side, clipped to it, to four digits."""
        x0, y0, x1, y1 = mirror(box) if self._mirrored else box
        return [round(min(1.0, max(0.0, edge)), 4) for edge in (x0, y0, x1, y1)]

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, uint8 (size, size, 3)."""
        factor = self._side // self._size
        return np.asarray(self._image.reduce(factor) if factor > 1 else self._image)

    def _edges(self, box: Box) -> tuple[int, int, int, int]:
        x0, y0, x1, y1 = mirror(box) if self._mirrored else box
        side = self._side
        return round(x0 * side), round(y0 * side), round(x1 * side), round(y1 * side)


def mirror(box: Box) -> Box:
    """`box` with left and right swapped."""
    x0, y0, x1, y1 = box
    return 1 - x1, y0, 1 - x0, y1


def _ink(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, round(part * 255))) for part in colour)
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` darker (factor below 1) or lighter (above)."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def blend(colour: Colour, other: Colour, share: float) -> Colour:
    """`colour` with `share` of `other` in it."""
    red, green, blue = (mine + share * (theirs - mine) for mine, theirs in zip(colour, other, strict=True))
    return red, green, blue
