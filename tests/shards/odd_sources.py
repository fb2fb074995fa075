"""Sources that misbehave. A module of its own, because each spawned worker imports it."""

import os

import numpy as np

from shards.sources import Item


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
