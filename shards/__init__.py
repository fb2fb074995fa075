"""Image datasets as plain tar shards with an index: drawn, read, cut, written, verified.

The package needs no torch. `python -m shards --help` lists the commands; `shards.building.build.build` is the
same in Python; `dcgan_dist.stream` reads the result.
"""

from shards.dataset.index import Index
from shards.errors import ShardsError

__all__ = ["Index", "ShardsError"]
