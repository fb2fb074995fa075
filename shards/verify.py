"""Read a dataset back: lengths, sha256 of each shard, sum of each block, and on request every picture.

Kept out: repair. Each finding is a line; shards are read block by block, never whole.
"""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from shards import index as indexes
from shards import store
from shards.blocks import BlockTable, block_sum
from shards.errors import ShardsError, StoreError
from shards.format import Record, parse_records
from shards.images import decode_into
from shards.index import Index, Shard


def verify(
    url: str, *, decode: bool = False, on_shard: Callable[[Shard], object] | None = None
) -> Iterator[str]:
    """Everything that is wrong at `url`, a line each; nothing where all is well.

    Raises ShardsError where there is no index to hold the shards against. `on_shard` hears of each one read.
    """
    index = indexes.load(url)
    table, first = indexes.load_blocks(url, index), index.block_starts()
    found = store.sizes(url)
    for number, shard in enumerate(index.shards):
        if shard.name not in found:
            yield f"{shard.name}: missing"
            continue
        if found[shard.name] != shard.bytes:
            yield f"{shard.name}: {found[shard.name]} bytes, the index says {shard.bytes}"
        yield from _verify_shard(url, index, shard, table[first[number] : first[number + 1]], decode=decode)
        if on_shard:
            on_shard(shard)


def _verify_shard(url: str, index: Index, shard: Shard, rows: BlockTable, *, decode: bool) -> Iterator[str]:
    where = store.join(url, shard.name)
    whole = hashlib.sha256()
    start = 0
    for block, row in enumerate(rows):
        start, stop = int(row["offset"]), int(row["offset"]) + int(row["bytes"])
        try:
            data = _read_block(where, start, stop, int(row["sum"]))
        except StoreError as error:
            yield f"{shard.name}: block {block}: {error}"
            return
        whole.update(data)
        if block_sum(data) != int(row["sum"]):
            yield f"{shard.name}: block {block} (bytes {start} to {stop}): its sum differs"
        elif decode:
            yield from _verify_pictures(data, f"{shard.name}: block {block}", index)
    start = stop if len(rows) else 0
    try:
        whole.update(store.read_range(where, start, shard.bytes))
    except StoreError as error:
        yield f"{shard.name}: after the last block: {error}"
        return
    if whole.hexdigest() != shard.sha256:
        yield f"{shard.name}: its sha256 differs"


def _read_block(where: str, start: int, stop: int, wanted: int) -> bytes:
    """The bytes of a block; asked for twice where a bit may have flipped on its way."""
    data = store.read_range(where, start, stop)
    if block_sum(data) != wanted and not store.is_local(where):
        data = store.read_range(where, start, stop)
    return data


def _verify_pictures(data: bytes, where: str, index: Index) -> Iterator[str]:
    out = np.empty((index.image_size, index.image_size, 3), np.uint8)
    try:
        records = parse_records(data, where=where)
    except ShardsError as error:
        yield str(error)
        return
    for record in records:
        if problem := _picture_problem(record, out):
            yield f"{where}: sample {record.key}: {problem}"


def _picture_problem(record: Record, out: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str | None:
    image = record.image()
    if image is None:
        return "no image member"
    try:
        decode_into(image[1], out)
    except ShardsError as error:
        return str(error)
    return None
