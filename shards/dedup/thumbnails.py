"""Thumbnails of 32 x 32 from a dataset, block by block.

Kept out: what is made of them.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from shards.dataset.reader import Blocks
from shards.dataset.sampling import priorities
from shards.pictures.codec import to_square

SIDE = 32
THUMB_BYTES = SIDE * SIDE * 3
THREADS = 4
"""Blocks under way at once."""

Thumbs = NDArray[np.uint8]
"""(n, 3072), one row per picture."""


def shrink(pixels: NDArray[np.uint8]) -> Thumbs:
    """Pictures uint8 (n, S, S, 3) to (n, 3072), averaged down."""
    images, side = pixels.shape[:2]
    factor, rest = divmod(side, SIDE)
    if rest or not factor:
        small = np.stack([to_square(picture, SIDE) for picture in pixels])
        return small.reshape(images, THUMB_BYTES)
    cells = pixels.reshape(images, SIDE, factor, SIDE, factor, 3).sum(axis=(2, 4), dtype=np.uint32)
    area = factor * factor
    small = (cells + area // 2) // area
    out: Thumbs = small.astype(np.uint8).reshape(images, THUMB_BYTES)
    return out


def read_shard(blocks: Blocks, shard: int) -> Thumbs:
    """The thumbnails of a whole shard, in its order."""
    first, stop = blocks.index.block_starts()[shard : shard + 2]
    return _gather(blocks, range(first, stop))


def read_sample(blocks: Blocks, *, images: int) -> Thumbs:
    """About `images` thumbnails for training, from whole blocks that a hash chooses.

    The choice and its order depend on what the shards hold and not on their order or names.
    """
    index = blocks.index
    starts = index.block_starts()
    shards = np.repeat(np.arange(len(index.shards)), np.diff(starts))
    order = priorities(index, shards, np.arange(index.blocks) - starts[shards])
    enough = int(np.searchsorted(np.cumsum(index.block_counts()[np.argsort(order)]), images)) + 1
    return _gather(blocks, np.argsort(order)[:enough].tolist())


def _gather(blocks: Blocks, chosen: Iterable[int]) -> Thumbs:
    with ThreadPoolExecutor(THREADS) as pool:
        return np.concatenate(list(pool.map(lambda block: shrink(blocks.whole(block)), chosen)))
