"""Batches in the order of the plan: threads read blocks, check them and decode straight into a ring of
batches.

The ring holds `prefetch_blocks` blocks of every lane, decoded: memory is lanes x block x prefetch_blocks.
Threads, not worker processes: reads and decoders release the interpreter lock, storage clients do not
survive a fork, and nothing has to be copied between processes. A damaged sample is replaced by its
neighbour in the block, a damaged block by the next block: both are functions of the position, so that every
run replaces alike.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from dcgan_dist.stream.plan import Plan, Span
from shards import Index, ShardsError, images, store
from shards.format import PIXELS_OFFSET, Buffer, image_members, parse_records
from shards.index import load_blocks

U8 = NDArray[np.uint8]


class Blocks:
    """The blocks of one dataset: the kept samples of each, checked and decoded."""

    def __init__(self, url: str, index: Index) -> None:
        self.url, self.index = url, index
        self.table = load_blocks(url, index)
        self._starts = index.block_starts()
        self._sizes = index.block_counts()
        self._removed = {
            (row, shard_position % index.block_samples)
            for number, shard in enumerate(index.shards)
            for shard_position in shard.removed
            for row in [int(self._starts[number]) + shard_position // index.block_samples]
        }

    @property
    def kept_counts(self) -> NDArray[np.int64]:
        counts = self._sizes.copy()
        for row, _ in self._removed:
            counts[row] -= 1
        return counts

    def kept_positions(self, block: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions counted among the kept samples of a block -> positions among all its samples."""
        if not self._removed:
            return positions
        size = int(self._sizes[block])
        kept = [i for i in range(size) if (block, i) not in self._removed]
        return np.asarray(kept, np.int64)[positions]

    def read(self, block: int) -> bytes:
        """The bytes of a block. Raises ShardsError when they are not those that were written."""
        row = self.table[block]
        shard = self.index.shards[int(np.searchsorted(self._starts, block, side="right")) - 1]
        url, start = store.join(self.url, shard.name), int(row["offset"])
        wanted = int(row["sum"])
        return store.read_range(
            url, start, start + int(row["bytes"]), check=lambda data: xxhash.xxh3_64_intdigest(data) == wanted
        )

    def first(self, images: int) -> U8:
        """The first kept samples in storage order, at most `images`, uint8 (n, S, S, 3)."""
        size = self.index.image_size
        found = np.empty((min(images, self.index.kept), size, size, 3), np.uint8)
        at = 0
        for block, kept in enumerate(self.kept_counts):
            take = min(int(kept), len(found) - at)
            if take:
                positions = self.kept_positions(block, np.arange(take))
                self.decode_into(self.read(block), positions, list(found[at : at + take]))
            at += take
        return found

    def decode_into(self, data: bytes, positions: NDArray[np.int64], rows: list[U8]) -> list[str]:
        """Decode the samples at `positions` into `rows`, (S, S, 3) each; what had to be replaced, and why."""
        size = self.index.image_size
        if self.index.record_bytes:
            records = np.frombuffer(data, np.uint8).reshape(-1, self.index.record_bytes)
            pixels = records[:, PIXELS_OFFSET : PIXELS_OFFSET + 3 * size * size].reshape(-1, size, size, 3)
            for position, row in zip(positions, rows, strict=True):
                row[:] = pixels[position]
            return []
        bad = []
        samples = self._images(data)
        for position, row in zip(positions, rows, strict=True):
            for neighbour in range(len(samples)):
                number = (int(position) + neighbour) % len(samples)
                try:
                    images.decode_into(samples[number], row)
                    break
                except ShardsError as error:
                    bad.append(f"sample {number} of a block: {error}")
            else:
                raise ShardsError(f"{self.url}: no sample of a block of {len(samples)} can be decoded")
        return bad

    def _images(self, data: bytes) -> Sequence[Buffer]:
        """The picture of every sample of a block, empty where a sample has none."""
        plain = image_members(data)
        if plain is not None:
            return plain
        found = (record.image() for record in parse_records(data, where=self.url))
        return [b"" if image is None else image[1] for image in found]


class Feed:
    """The batches of one rank from `first_step` on, for ever: `with Feed(...) as feed: feed.next_batch()`.

    `waited_seconds` is the time that `next_batch` spent waiting; `replaced` counts damaged samples.
    """

    def __init__(
        self,
        blocks: Blocks,
        plan: Plan,
        *,
        lanes: range,
        first_step: int = 0,
        threads: int = 2,
        prefetch_blocks: int = 2,
        max_bad_fraction: float = 0.001,
    ) -> None:
        self.blocks, self.plan, self.lanes = blocks, plan, lanes
        self.waited_seconds, self.replaced = 0.0, 0
        self._bad_allowed = max_bad_fraction * float(plan.counts.sum()) * len(lanes) / plan.batch_images
        # One block of every lane must fit, or the threads would wait for room that never comes.
        depth = int(plan.counts.max()) * max(prefetch_blocks, 1)
        size = blocks.index.image_size
        self._ring = np.empty((depth, len(lanes), size, size, 3), np.uint8)
        self._missing = np.full(depth, len(lanes))  # rows of each slot not yet decoded
        self._step = first_step  # the step that the consumer holds or waits for; earlier slots are free
        self._started = False
        self._spans = self._all_spans(first_step)
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def next_batch(self) -> U8:
        """The next step's rows of this rank, (lanes, S, S, 3); valid until the next call."""
        began = time.perf_counter()
        with self._changed:
            if self._started:
                self._missing[self._step % len(self._ring)] = len(self.lanes)
                self._step += 1
                self._changed.notify_all()
            self._started = True
            slot = self._step % len(self._ring)
            self._changed.wait_for(lambda: self._error is not None or self._missing[slot] == 0)
            if self._error is not None:
                raise self._error
        self.waited_seconds += time.perf_counter() - began
        batch: U8 = self._ring[slot]
        return batch

    def _all_spans(self, first_step: int) -> Iterator[tuple[int, Span]]:
        """Every span from `first_step` on, over all epochs, with the step at which its epoch began."""
        epoch, first = divmod(first_step, self.plan.steps_per_epoch)
        while True:
            for span in self.plan.epoch(epoch).spans(self.lanes, first_step=first):
                yield epoch * self.plan.steps_per_epoch, span
            epoch, first = epoch + 1, 0

    def _work(self) -> None:
        try:
            while not self._closed:
                with self._taking:
                    epoch_step, span = next(self._spans)
                self._serve(span, epoch_step + span.first)
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _serve(self, span: Span, first: int) -> None:
        block, positions, data = self._whole_block(span)
        with self._changed:
            last = first + len(span.samples) - 1
            self._changed.wait_for(lambda: self._closed or last < self._step + len(self._ring))
            if self._closed:
                return
        slots = (first + np.arange(len(span.samples))) % len(self._ring)
        row = span.lane - self.lanes.start
        bad = self.blocks.decode_into(data, positions, [self._ring[slot, row] for slot in slots])
        if block != span.block:
            bad += [f"sample {i} of damaged block {span.block}" for i in span.samples]
        with self._changed:
            self._missing[slots] -= 1
            self._changed.notify_all()
        if bad:
            self._count_bad(bad)

    def _whole_block(self, span: Span) -> tuple[int, NDArray[np.int64], bytes]:
        """The span's block, or the first whole one after it, with the positions to serve from it."""
        total = len(self.plan.counts)
        reason: ShardsError | None = None
        for ahead in range(min(total, 8)):
            block = (span.block + ahead) % total
            if not self.plan.counts[block]:
                continue
            try:
                data = self.blocks.read(block)
            except ShardsError as error:
                reason = reason or error
                continue
            return block, self.blocks.kept_positions(block, span.samples % self.plan.counts[block]), data
        raise reason or ShardsError(f"{self.blocks.url}: no block left to read")

    def _count_bad(self, bad: list[str]) -> None:
        with self._changed:
            self.replaced += len(bad)
            if self.replaced > self._bad_allowed:
                raise ShardsError(
                    f"{self.blocks.url}: {self.replaced} damaged samples were replaced, more than "
                    f"data.max_bad_fraction allows ({self._bad_allowed:.1f}); the last: {bad[-1]}; "
                    f"run: python -m shards verify {self.blocks.url}"
                )
