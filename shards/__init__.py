"""Image datasets as plain tar shards with an index: drawn, read, cut, written, verified.

The package needs no torch. `python -m shards --help` lists the commands; `shards.build.build` is the
same in Python; `dcgan_dist.stream` reads the result.
"""

from shards.errors import ShardsError
from shards.index import Index

__all__ = ["Index", "ShardsError"]
