"""Which of a dataset's samples go first, by a hash: a fair choice, whatever the order of shards or classes.

Kept out: reading them; see `reader.Blocks.sample`.
"""

import numpy as np

from shards.arrays import I64, U64
from shards.dataset.index import Index
from shards.dataset.splitmix import mix

SAMPLE_SALT = 0x5A17
"""Other than that of de-duplication, whose survivors all come early in its own order."""


def priorities(index: Index, shards: I64, within: I64, *, salt: int = 0) -> U64:
    """A hash of each (shard's content, place within it): who goes first, whatever the order of the shards.

    Orders of different salts know nothing of each other.
    """
    return _hash(_seeds(index)[shards], within, salt=salt)


def fair_places(index: Index, images: int) -> I64:
    """Positions, among all samples, of a fair sample of those kept: `images` at most, in the hash's order.

    The first k of it are the fair sample of k. Memory is a shard's samples, and the result.
    """
    places, hashes, start = np.zeros(0, np.int64), np.zeros(0, np.uint64), 0
    limit = np.uint64(2**64 - 1)
    for seed, shard in zip(_seeds(index), index.shards, strict=True):
        within = np.delete(np.arange(shard.samples), np.asarray(shard.removed, np.int64))
        own = _hash(seed, within, salt=SAMPLE_SALT)
        early = own <= limit
        places = np.concatenate((places, start + within[early]))
        hashes = np.concatenate((hashes, own[early]))
        start += shard.samples
        if len(places) > 2 * images:
            places, hashes = _first(places, hashes, images)
            limit = hashes.max(initial=0)
    return _first(places, hashes, images)[0]


def _seeds(index: Index) -> U64:
    return np.array([int(shard.sha256[:16], 16) for shard in index.shards], np.uint64)


def _hash(seeds: U64 | np.uint64, within: I64, *, salt: int = 0) -> U64:
    return mix(seeds ^ mix(within.astype(np.uint64) ^ np.uint64(salt)))


def _first(places: I64, hashes: U64, images: int) -> tuple[I64, U64]:
    order = np.argsort(hashes, kind="stable")[:images]
    return places[order], hashes[order]
