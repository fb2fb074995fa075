"""Batches in the order of the plan: threads check blocks and decode their pictures into a ring of batches.

Each thread fills the rows of its own lanes. A lane's block stays encoded, and each picture is decoded for the
batch that needs it, so that memory is what storage takes and a few batches. Threads, not worker processes:
reads and decoders release the interpreter lock, storage clients do not survive a fork, and nothing has to be
copied between processes. A damaged sample is replaced by the next of its block, a damaged block by the next
block: both are functions of the position, so that every run replaces alike. Storage that does not answer is
no damage: it stops the run.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import Config
from dcgan_dist.stream.cache import Cache
from dcgan_dist.stream.fetch import Data, Fetch
from dcgan_dist.stream.plan import Plan, Span
from shards.dataset.reader import Blocks
from shards.errors import DamagedError
from shards.printable import printable
from shards.redact import redact
from shards.tars.records import Buffer

U8 = NDArray[np.uint8]
RING_BATCHES, RING_BYTES = 8, 2**27
"""What the ring holds at most, and three batches at least."""

USED = {"alternate": (False, True), "both": (True,)}
"""Which steps need pictures, by `train.update_rule`: those that update D."""

GLANCE_SECONDS = 0.25
LEAVE_SECONDS = 3.0
SUBSTITUTES = 8
"""How many blocks to try in place of a damaged one."""

log = logging.getLogger("dcgan_dist")


class Feed:
    """The batches of one rank for steps [`first_step`, `stop_step`): `with Feed(...) as f: f.next_batch()`.

    `waited_seconds` is the time that `next_batch` spent waiting; `replaced` counts the damaged samples of the
    batches it gave. Memory is `memory_bytes` at most, and `prefetch_bytes` where storage is remote.

    Step s needs its pictures where `used` says so at s modulo its length. Elsewhere its samples pass in their
    order and are not decoded: what `next_batch` gives is to be ignored.
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
        used: tuple[bool, ...] = (True,),
    ) -> None:
        self.blocks, self.plan, self.lanes = blocks, plan, lanes
        self.waited_seconds, self.replaced = 0.0, 0
        self._max_bad_fraction, self._warn_after_seconds = max_bad_fraction, warn_after_seconds
        self._used = used
        self._named: set[str] = set()
        size = blocks.index.image_size
        ahead = min(RING_BATCHES, max(3, RING_BYTES // (len(lanes) * size * size * 3)))
        self._ring = np.empty((ahead, len(lanes), size, size, 3), np.uint8)
        threads = min(threads, len(lanes))
        self._missing = [threads] * ahead  # threads that have not filled their rows of each slot
        self._bad = [0] * ahead  # replaced samples in each slot
        self._first_step, self._stop_step = first_step, stop_step
        self._step = first_step  # the step that the consumer holds or waits for; earlier slots are free
        self._started = False
        self.fetch = Fetch(blocks, requests=requests, window_bytes=prefetch_bytes, cache=cache)
        self._spans = self.fetch.follow(self._all_spans(first_step))
        self._coming: list[deque[tuple[int, Span, Data]]] = [deque() for _ in lanes]
        self._dealt = first_step - 1  # every span that begins by this step is in `_coming`
        self._upcoming: tuple[int, Span, Data] | None = None  # the first that is not
        self._taking = threading.Lock()
        lock = threading.Lock()
        self._room = threading.Condition(lock)  # a slot is free again
        self._ready = threading.Condition(lock)  # the batch that is waited for is there, or never will be
        self._under_way: dict[int, tuple[int, Span]] = {}
        self._error: BaseException | None = None
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(range(len(lanes))[t::threads],), daemon=True)
            for t in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        with self._room:
            self._closed = True
            self._room.notify_all()
        self.fetch.close()
        deadline = time.monotonic() + LEAVE_SECONDS
        for thread in self._threads:  # one that storage never answers is left behind
            thread.join(max(deadline - time.monotonic(), 0))

    @property
    def rank(self) -> int:
        """The rank that these lanes are of."""
        return self.lanes.start // len(self.lanes)

    @property
    def memory_bytes(self) -> int:
        """What the decoded batches and the lanes' blocks take: the ring, and lanes x the longest block."""
        return self._ring.nbytes + len(self.lanes) * int(self.blocks.lengths.max())

    def next_batch(self) -> U8:
        """The next step's rows of this rank, (lanes, S, S, 3); valid until the next call."""
        batch = self.batch_unless(lambda waited_seconds: False)
        assert batch is not None
        return batch

    def batch_unless(self, gives_up: Callable[[float], bool]) -> U8 | None:
        """As `next_batch`, but None where `gives_up` says so, which is asked now and then with the seconds
        that it took so far; no more batches come then."""
        began = time.perf_counter()
        with self._ready:
            assert self._stop_step is None or self._step + self._started < self._stop_step
            if self._started:
                self._missing[self._step % len(self._ring)] = len(self._threads)
                self._step += 1
                self._room.notify_all()
            self._started = True
            slot = self._step % len(self._ring)
            warned = False
            while not self._ready.wait_for(lambda: self._is_ready(slot), GLANCE_SECONDS):
                waited = time.perf_counter() - began
                if gives_up(waited):
                    return None
                if not warned and waited > self._warn_after_seconds:
                    warned = True
                    log.warning("%s", self._what_it_waits_for())
            if self._error is not None:
                raise self._error
            self.replaced, self._bad[slot] = self.replaced + self._bad[slot], 0
        self.waited_seconds += time.perf_counter() - began
        batch: U8 = self._ring[slot]
        return batch

    def _is_ready(self, slot: int) -> bool:
        return self._error is not None or self._missing[slot] == 0

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

    def _work(self, rows: range) -> None:
        """Fill these rows of every batch."""
        try:
            held = {row: self._pictures(row) for row in rows}
            for step in count(self._first_step):
                if step == self._stop_step:
                    return
                with self._room:
                    self._room.wait_for(lambda: self._closed or step < self._step + len(self._ring))  # noqa: B023
                if self._closed:
                    return
                self._deal(step)
                slot = step % len(self._ring)
                batch = self._ring[slot] if self._used[step % len(self._used)] else None
                bad = sum(self._fill(batch, row, *next(pictures)) for row, pictures in held.items())
                with self._ready:
                    self._bad[slot] += bad
                    self._missing[slot] -= 1
                    if slot == self._step % len(self._ring) and not self._missing[slot]:
                        self._ready.notify()
        except BaseException as error:
            with self._ready:
                self._error = self._error or error
                self._ready.notify()

    def _deal(self, step: int) -> None:
        """Hand out the spans that begin by `step`."""
        with self._taking:
            if step <= self._dealt:
                return
            if self._dealt < self._first_step:
                self._upcoming = next(self._spans, None)
            while self._upcoming and self._upcoming[0] + self._upcoming[1].first <= step:
                self._coming[self._upcoming[1].lane - self.lanes.start].append(self._upcoming)
                self._upcoming = next(self._spans, None)
            self._dealt = step

    def _fill(
        self, batch: U8 | None, row: int, into: Callable[[int, U8], str | None], wanted: int, replaced: bool
    ) -> bool:
        """Decode one picture where a batch needs it; whether it is another than the plan's."""
        told = into(wanted, batch[row]) if batch is not None else None
        if told:
            self._tell([told])
        return replaced or told is not None

    def _pictures(self, row: int) -> Iterator[tuple[Callable[[int, U8], str | None], int, bool]]:
        """For each step of one lane, the block's pictures, which of them, and whether the block stands in."""
        coming = self._coming[row]
        while True:
            at, span, data = coming.popleft()
            self._under_way[threading.get_ident()] = at, span
            block, found, bad = self._whole_block(span, data)
            if bad:
                self._tell(bad)
            pictures = self.blocks.pictures(block, found)
            del self._under_way[threading.get_ident()], found, data
            samples = span.samples if block == span.block else span.samples % self.plan.counts[block]
            into = pictures.into
            for wanted in samples.tolist():
                yield into, wanted, block != span.block

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
        """Name what was replaced, once."""
        with self._ready:
            fresh = [line for line in bad if line not in self._named]
            self._named.update(fresh)
        for line in fresh:
            log.warning("%s: %s", redact(self.blocks.url), printable(redact(line)))

    def check_replaced(self, total: int) -> None:
        """Raise ConfigError where `total` samples, replaced on all ranks, are more than may be.

        They are compared with the samples of an epoch, or of all steps so far if those are more, so that any
        number of ranks stops at the same step.
        """
        steps = max(self.plan.steps_per_epoch, self._step + 1 - self._first_step)
        samples = steps * self.plan.batch_images
        allowed = self._max_bad_fraction * samples
        if total > allowed:
            raise ConfigError(
                f"{self.blocks.url}: {total} damaged samples were replaced, more than the {allowed:.1f} of "
                f"{samples} that data.max_bad_fraction={self._max_bad_fraction} allows; "
                f"run: python -m shards verify {self.blocks.url}"
            )


def open_feed(
    config: Config, blocks: Blocks, plan: Plan, *, lanes: range, first_step: int, stop_step: int
) -> Feed:
    """The batches of these lanes, as `config.data` says."""
    data = config.data
    cache = Cache(data.cache_dir, blocks, limit_bytes=data.cache_bytes) if data.cache_dir else None
    return Feed(
        blocks,
        plan,
        lanes=lanes,
        first_step=first_step,
        stop_step=stop_step,
        threads=data.threads,
        requests=data.requests,
        prefetch_bytes=data.prefetch_bytes,
        cache=cache,
        max_bad_fraction=data.max_bad_fraction,
        warn_after_seconds=data.warn_after_seconds,
        used=USED[config.train.update_rule],
    )
