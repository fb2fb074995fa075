"""Batches in the order of the plan: threads check and decode blocks straight into a ring of batches.

The ring holds two blocks of every lane, decoded; what is read ahead of it is still encoded. Threads, not
worker processes: reads and decoders release the interpreter lock, storage clients do not survive a fork,
and nothing has to be copied between processes. A damaged sample is replaced by the next of its block, a
damaged block by the next block: both are functions of the position, so that every run replaces alike. Storage
that does not answer is no damage: it stops the run.
"""

import logging
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dcgan_dist.stream.cache import Cache
from dcgan_dist.stream.fetch import Data, Fetch
from dcgan_dist.stream.plan import Plan, Span
from shards import ShardsError
from shards.errors import DamagedError
from shards.format import Buffer
from shards.reader import Blocks
from shards.redact import redact

U8 = NDArray[np.uint8]
SUBSTITUTES = 8
"""How many blocks to try in place of a damaged one."""

log = logging.getLogger("dcgan_dist")


class Feed:
    """The batches of one rank for steps [`first_step`, `stop_step`): `with Feed(...) as f: f.next_batch()`.

    `waited_seconds` is the time that `next_batch` spent waiting; `replaced` counts damaged samples. Memory is
    `ring_bytes`, and `prefetch_bytes` where storage is remote.
    """

    def __init__(
        self,
        blocks: Blocks,
        plan: Plan,
        *,
        lanes: range,
        first_step: int = 0,
        stop_step: int | None = None,
        threads: int = 2,
        requests: int = 16,
        prefetch_bytes: int = 2**28,
        cache: Cache | None = None,
        max_bad_fraction: float = 0.001,
        warn_after_seconds: float = 30.0,
    ) -> None:
        self.blocks, self.plan, self.lanes = blocks, plan, lanes
        self.waited_seconds, self.replaced = 0.0, 0
        self._max_bad_fraction, self._warn_after_seconds = max_bad_fraction, warn_after_seconds
        self._named: set[str] = set()
        size = blocks.index.image_size
        # A block is decoded as a whole: with room for one of each lane, it would be when it is needed.
        self._ring = np.empty((2 * int(plan.counts.max()), len(lanes), size, size, 3), np.uint8)
        self._missing = np.full(len(self._ring), len(lanes))  # rows of each slot not yet decoded
        self._first_step, self._stop_step = first_step, stop_step
        self._step = first_step  # the step that the consumer holds or waits for; earlier slots are free
        self._started = False
        self.fetch = Fetch(blocks, requests=requests, window_bytes=prefetch_bytes, cache=cache)
        self._spans = self.fetch.follow(self._all_spans(first_step))
        self._taking = threading.Lock()
        lock = threading.Lock()
        self._room = threading.Condition(lock)  # a slot is free again
        self._ready = threading.Condition(lock)  # the batch that is waited for is there, or never will be
        self._under_way: dict[int, tuple[int, Span]] = {}
        self._error: BaseException | None = None
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        with self._room:
            self._closed = True
            self._room.notify_all()
        self.fetch.close()
        for thread in self._threads:
            thread.join()

    @property
    def rank(self) -> int:
        """The rank that these lanes are of."""
        return self.lanes.start // len(self.lanes)

    @property
    def ring_bytes(self) -> int:
        """What the decoded batches take: 2 x lanes x the bytes of a decoded block."""
        return self._ring.nbytes

    def next_batch(self) -> U8:
        """The next step's rows of this rank, (lanes, S, S, 3); valid until the next call."""
        began = time.perf_counter()
        with self._ready:
            assert self._stop_step is None or self._step + self._started < self._stop_step
            if self._started:
                self._missing[self._step % len(self._ring)] = len(self.lanes)
                self._step += 1
                self._room.notify_all()
            self._started = True
            slot = self._step % len(self._ring)
            if not self._ready.wait_for(lambda: self._is_ready(slot), self._warn_after_seconds):
                log.warning("%s", self._what_it_waits_for())
                self._ready.wait_for(lambda: self._is_ready(slot))
            if self._error is not None:
                raise self._error
        self.waited_seconds += time.perf_counter() - began
        batch: U8 = self._ring[slot]
        return batch

    def _is_ready(self, slot: int) -> bool:
        return self._error is not None or bool(self._missing[slot] == 0)

    def _what_it_waits_for(self) -> str:
        late = [span for at, span in list(self._under_way.values()) if at + span.first <= self._step]
        told = f"rank {self.rank} has waited {self._warn_after_seconds:.0f} s for step {self._step}'s data"
        if not late:
            return f"{told} and goes on waiting: data.threads={len(self._threads)} may be too few"
        place = self.blocks.place(min(late).block)
        where = redact(self.blocks.shard_url(place.shard))
        return f"{told} and goes on waiting: for bytes {place.start} to {place.stop} of {where}"

    def _all_spans(self, first_step: int) -> Iterator[tuple[int, Span]]:
        """Every span from `first_step` on, over all epochs, with the step at which its epoch began."""
        epoch, first = divmod(first_step, self.plan.steps_per_epoch)
        while True:
            began = epoch * self.plan.steps_per_epoch
            for span in self.plan.epoch(epoch).spans(self.lanes, first_step=first):
                if self._stop_step is not None and began + span.first >= self._stop_step:
                    return
                yield began, span
            epoch, first = epoch + 1, 0

    def _work(self) -> None:
        try:
            while not self._closed:
                with self._taking:
                    taken = next(self._spans, None)
                if taken is None:
                    return
                at, span, data = taken
                self._under_way[threading.get_ident()] = at, span
                self._serve(span, at + span.first, data)
                del self._under_way[threading.get_ident()]
        except BaseException as error:
            with self._ready:
                self._error = self._error or error
                self._ready.notify()

    def _serve(self, span: Span, first: int, data: Data) -> None:
        block, found, bad = self._whole_block(span, data)
        stop = first + len(span.samples)
        with self._room:
            self._room.wait_for(lambda: self._closed or stop <= self._step + len(self._ring))
            if self._closed:
                return
        row, low = span.lane - self.lanes.start, first % len(self._ring)
        # The ring's end may lie within the span.
        cut = min(len(span.samples), len(self._ring) - low)
        pieces = [(slice(low, low + cut), span.samples[:cut])]
        if cut < len(span.samples):
            pieces.append((slice(0, len(span.samples) - cut), span.samples[cut:]))
        for slots, samples in pieces:
            wanted = samples if block == span.block else samples % self.plan.counts[block]
            bad += self.blocks.decode_into(block, found, wanted, self._ring[slots, row])
        if bad:
            self._tell(bad)
        with self._ready:
            for slots, _ in pieces:
                self._missing[slots] -= 1
            # The consumer is woken when there is something for it, not for every block.
            if self._missing[self._step % len(self._ring)] == 0:
                self._ready.notify()

    def _whole_block(self, span: Span, data: Data) -> tuple[int, Buffer, list[str]]:
        """The span's block, or the next whole one, with its bytes, and a line for each sample replaced."""
        try:
            return span.block, data(), []
        except DamagedError as error:
            first = error
        total = len(self.plan.counts)
        for ahead in range(1, min(total, SUBSTITUTES)):
            block = (span.block + ahead) % total
            if not self.plan.counts[block]:
                continue
            try:
                found = self.blocks.read(block)
            except DamagedError:
                continue
            return (
                block,
                found,
                [
                    f"{self.blocks.sample_name(span.block, position)} is in a damaged block ({first})"
                    for position in self.blocks.kept(span.block)[span.samples].tolist()
                ],
            )
        raise first

    def _tell(self, bad: list[str]) -> None:
        """Count and name what was replaced. Raises ShardsError when it is too much."""
        with self._ready:
            self.replaced += len(bad)
            fresh = [line for line in bad if line not in self._named]
            self._named.update(fresh)
            served = max(self.plan.steps_per_epoch, self._step - self._first_step) * len(self.lanes)
            allowed = self._max_bad_fraction * served
            for line in fresh:
                log.warning("%s: %s", redact(self.blocks.url), redact(line))
            if self.replaced > allowed:
                raise ShardsError(
                    f"{self.blocks.url}: {self.replaced} damaged samples were replaced, more than the "
                    f"{allowed:.1f} that data.max_bad_fraction={self._max_bad_fraction} allows; the last: "
                    f"{bad[-1]}; run: python -m shards verify {self.blocks.url}"
                )
