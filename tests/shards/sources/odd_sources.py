"""Sources that misbehave. A module of its own, because each spawned worker imports it."""

import os

import numpy as np

from shards.errors import ImageError
from shards.sources.base import Item


class Boastful:
    """A source whose JSON is longer than it says."""

    samples, classes, meta_bytes = 1, (), 10

    def settings(self):
        return {"source": "boastful"}

    def item(self, position):
        return Item("n" * 600, np.zeros((8, 8, 3), np.uint8))


class Deadly:
    """A source that takes its process with it."""

    samples, classes, meta_bytes = 4, (), 10

    def settings(self):
        return {"source": "deadly"}

    def item(self, position):
        os._exit(1)


class Failing:
    """Pictures of which some raise: an OSError for a number, an ImageError for a text, by position."""

    classes, meta_bytes = (), 40

    def __init__(self, samples, faults):
        self.samples, self._faults = samples, faults

    def settings(self):
        return {"source": "failing", "images": self.samples}

    def item(self, position):
        fault, name = self._faults.get(position), f"{position:06d}"
        if isinstance(fault, int):
            raise OSError(fault, os.strerror(fault), f"/data/{name}")
        if fault:
            raise ImageError(f"{name}: {fault}", fault)
        return Item(name, np.full((8, 8, 3), position, np.uint8))
