"""Requests and bytes of one epoch against the least possible: counted, not timed.

The true plan and the true reader over a storage that answers at once with nothing: 3,033,042 JPEGs of 64x64
(4 KB a record), batch 128, on 1 and on 8 ranks. The least possible is every block once.
"""

import argparse
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from benchmarks.record import record
from dcgan_dist.config.settings import Data
from dcgan_dist.stream.fetch import Fetch
from dcgan_dist.stream.plan import Plan, Span, lanes
from shards.dataset.blocks import default_block_samples
from shards.dataset.reader import Blocks, Place

IMAGES, SHARD, RECORD_BYTES, BATCH = 3_033_042, 2048, 3968, 128


class Empty:
    """Blocks that cost nothing to read."""

    url = "counted://"

    def __init__(self, images: int) -> None:
        block = default_block_samples(64)
        self.per_shard = -(-SHARD // block)
        whole = np.full((images // SHARD, self.per_shard), block, np.int64)
        whole[:, -1] = (SHARD - 1) % block + 1
        self.counts = whole.ravel()
        self.lengths = self.counts * RECORD_BYTES
        self.bytes = 0

    def place(self, block: int) -> Place:
        shard, number = divmod(block, self.per_shard)
        start = number * int(self.lengths[0])
        return Place(shard, start, start + int(self.lengths[block]))

    def read_run(self, run: range) -> bytes:
        self.bytes += sum(int(self.lengths[block]) for block in run)
        return b""

    def cut(self, run: range, data: bytes) -> list[bytes]:
        return [b"" for _ in run]


def count(ranks: int) -> tuple[float, float]:
    """Requests and bytes of all ranks in one epoch, over those of reading every block once."""
    requests = moved = 0
    for rank in range(ranks):
        blocks = Empty(IMAGES)
        plan = Plan(blocks.counts, batch_images=BATCH, seed=0)
        fetch = Fetch(cast(Blocks, cast(Any, blocks)), requests=1, window_bytes=Data().prefetch_bytes)
        for _, _, data in fetch.follow(_epoch(plan, lanes(rank, ranks, BATCH))):
            data()
        fetch.close()
        requests, moved = requests + fetch.reads, moved + blocks.bytes
    return requests / len(blocks.counts), moved / float(blocks.lengths.sum())


def _epoch(plan: Plan, rows: range) -> Iterator[tuple[int, Span]]:
    return ((0, span) for span in plan.epoch(0).spans(rows, first_step=0))


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for ranks in (1, 8):
        gets, moved = count(ranks)
        config = {
            "images": IMAGES,
            "ranks": ranks,
            "batch_images": BATCH,
            "prefetch_bytes": Data().prefetch_bytes,
        }
        record("reads", f"reads/{ranks}_ranks/requests_over_blocks", [gets], unit="ratio", config=config)
        record("reads", f"reads/{ranks}_ranks/bytes_over_least", [moved], unit="ratio", config=config)


if __name__ == "__main__":
    main()
