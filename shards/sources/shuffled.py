"""Another source in a fixed random order, for sets that are sorted by class or by time.

Kept out: numpy's random streams, which may change between releases.
"""

from typing import Any

import numpy as np

from shards.dataset.splitmix import GOLDEN, finish
from shards.errors import ShardsError
from shards.sources.base import Item, Source, passed_over
from shards.sources.downloads import Published


class Shuffled:
    """`source` in the order that `seed` gives."""

    def __init__(self, source: Source, seed: int) -> None:
        if not 0 <= seed < 2**63:
            raise ShardsError(f"shuffle={seed} is outside [0, 2**63); give one inside")
        self._source, self._seed = source, seed
        self.samples, self.classes, self.meta_bytes = source.samples, source.classes, source.meta_bytes
        self.passed_over = passed_over(source)
        self.downloads = source.downloads if isinstance(source, Published) else ()
        self._order = np.argsort(_hashes(source.samples, seed), kind="stable")

    def settings(self) -> dict[str, Any]:
        """The source's own, and the seed."""
        return self._source.settings() | {"shuffle": self._seed}

    def item(self, position: int) -> Item | tuple[Item, ...]:
        """The source's picture whose turn it is."""
        return self._source.item(int(self._order[position]))


def _hashes(samples: int, seed: int) -> np.typing.NDArray[np.uint64]:
    """splitmix64 of each position, begun by the seed."""
    with np.errstate(over="ignore"):
        return finish(np.arange(samples, dtype=np.uint64) * GOLDEN + np.uint64(seed))
