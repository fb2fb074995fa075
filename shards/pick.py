"""A few pictures out of a dataset, wherever they lie; each block that is read is checked.

Kept out: reading all of them fast, which is the stream's.
"""

from collections.abc import Sequence

import numpy as np

from shards import index as indexes
from shards import store
from shards.blocks import BlockTable, block_sum
from shards.errors import ShardsError
from shards.format import image_members
from shards.images import Pixels, decode_into
from shards.index import Index, Shard


def read_block(url: str, index: Index, shard: Shard, row: BlockTable) -> Pixels:
    """The pictures of one block, uint8 (n, S, S, 3). Raises ShardsError where it is damaged."""
    where, start = store.join(url, shard.name), int(row["offset"])
    data = store.read_range(where, start, start + int(row["bytes"]))
    if block_sum(data) != int(row["sum"]):
        raise ShardsError(f"{where}: bytes from {start} are damaged; run: python -m shards verify {url}")
    members = image_members(data, where=where)
    out = np.empty((len(members), index.image_size, index.image_size, 3), np.uint8)
    for picture, member in zip(out, members, strict=True):
        decode_into(member, picture)
    return out


def read_pictures(url: str, index: Index, places: Sequence[int]) -> dict[int, Pixels]:
    """The pictures at these positions of all samples, (S, S, 3) each."""
    table, starts = indexes.load_blocks(url, index), index.block_starts()
    found = {}
    for place in places:
        number, block, within = index.find(place)
        found[place] = read_block(url, index, index.shards[number], table[starts[number] + block])[within]
    return found
