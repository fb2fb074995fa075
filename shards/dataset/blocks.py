"""`blocks.npy`: where each block lies in its shard, and the checksum of its bytes.

A block is a run of consecutive samples of one shard: the unit of reading, checksum and shuffle. Kept out:
where the table is stored, which is `index`'s.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

from shards.errors import ShardsError
from shards.tars.records import TAR_BLOCK, Buffer, array_header

BlockTable: TypeAlias = NDArray[np.void]

BLOCK_DTYPE = np.dtype([("offset", "<u8"), ("bytes", "<u4"), ("sum", "<u8")])
"""One row per block: where it begins in its shard, its length, and the xxh3-64 of its bytes."""

BLOCK_PIXEL_BYTES = 262144
"""The decoded bytes of a block by default; a reader holds one block per lane."""


def default_block_samples(image_size: int) -> int:
    """The samples per block that decode to BLOCK_PIXEL_BYTES, at least one."""
    return max(1, BLOCK_PIXEL_BYTES // (image_size * image_size * 3))


def block_sum(data: Buffer) -> int:
    """The checksum of a block's bytes."""
    return xxhash.xxh3_64_intdigest(data)


def cut_blocks(data: Buffer, stops: Sequence[int], block_samples: int) -> BlockTable:
    """The rows of one shard whose i-th record ends at byte `stops[i]` of `data`."""
    ends = [*stops[block_samples - 1 : len(stops) - 1 : block_samples], *stops[-1:]]
    starts = [0, *ends][: len(ends)]
    view = memoryview(data)
    spans = zip(starts, ends, strict=True)
    rows = [(start, end - start, block_sum(view[start:end])) for start, end in spans]
    return np.array(rows, BLOCK_DTYPE)


def pack_blocks(table: BlockTable) -> bytes:
    """The table in NumPy format 1.0, byte for byte the same on every machine."""
    return _header(len(table)) + table.tobytes()


def table_bytes(rows: int) -> int:
    """The length of a packed table."""
    return len(_header(rows)) + rows * BLOCK_DTYPE.itemsize


def parse_blocks(data: bytes, rows: int, *, where: str = "blocks.npy") -> BlockTable:
    """The table of `rows` rows. Raises ShardsError where `data` is anything else."""
    header = _header(rows)
    if not data.startswith(header) or len(data) != len(header) + rows * BLOCK_DTYPE.itemsize:
        raise ShardsError(f"{where} is not a table of the {rows} blocks its index tells of; write both anew")
    return np.frombuffer(data, BLOCK_DTYPE, offset=len(header))


def is_table(data: bytes) -> bool:
    """Whether this is a table of blocks, of any dataset."""
    return data.startswith(_header(0)[:90])


def lie_end_to_end(table: BlockTable, first_rows: NDArray[np.int64], shard_bytes: Sequence[int]) -> bool:
    """Whether the blocks of each shard follow each other from byte 0 and leave room for the tar's end.

    `first_rows` holds the row of each shard's first block, and the number of rows at the end.
    """
    starts, stops = table["offset"], table["offset"] + table["bytes"]
    expected = np.concatenate([np.zeros(1, np.uint64), stops[:-1]])
    expected[first_rows[:-1]] = 0
    room = np.array(shard_bytes, np.int64) - 2 * TAR_BLOCK
    return bool(
        np.array_equal(starts, expected) and (stops[first_rows[1:] - 1].astype(np.int64) <= room).all()
    )


def _header(rows: int) -> bytes:
    descr = "[('offset', '<u8'), ('bytes', '<u4'), ('sum', '<u8')]"
    return array_header(descr, f"({rows},)", 192)
