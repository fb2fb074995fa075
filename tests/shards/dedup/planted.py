"""Drawn rooms with planted duplicates of every kind that the paper's hash is asked about."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shards.sources.base import Item
from shards.sources.drawn.rooms import Rooms

SIZE = 64


def jpeg(image, quality):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def resized(image, *sides):
    picture = Image.fromarray(image)
    for side in sides:
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture)


KINDS = {
    "exact": lambda image: image,
    "jpeg75": lambda image: jpeg(image, 75),
    "jpeg40": lambda image: jpeg(image, 40),
    "resize": lambda image: resized(image, 90, SIZE),
    "brighter": lambda image: np.clip(image.astype(float) * 1.03, 0, 255).astype(np.uint8),
    "shift1": lambda image: np.roll(image, 1, axis=1),
}


@dataclass(frozen=True)
class Planted:
    """`rooms` rooms, then `copies` changed copies of each kind of the first ones, kind by kind."""

    rooms: int
    copies: int
    classes: tuple[str, ...] = ()
    meta_bytes: int = 64

    @property
    def samples(self):
        return self.rooms + self.copies * len(KINDS)

    def settings(self):
        return {"source": "planted", "rooms": self.rooms, "copies": self.copies}

    def item(self, position):
        kind, original = self.origin(position)
        image = Rooms(self.rooms, SIZE).item(original).image
        return Item(f"{kind}-{original}", KINDS[kind](image) if kind else image)

    def origin(self, position):
        """The kind, empty of a room itself, and the room."""
        if position < self.rooms:
            return "", position
        kind, number = divmod(position - self.rooms, self.copies)
        # Each kind has rooms of its own, so that copies of different kinds are not duplicates of each other.
        return list(KINDS)[kind], kind * self.copies + number
