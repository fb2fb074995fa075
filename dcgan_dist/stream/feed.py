"""Batches in the order of the plan: threads check blocks and decode their pictures into a ring of batches.

Each thread fills the rows of its own lanes. A lane's block stays encoded, and each picture is decoded for the
batch that needs it, so that memory is what storage takes and a few batches. Threads, not worker processes:
reads and decoders release the interpreter lock, storage clients do not survive a fork, and nothing has to be
copied between processes. A damaged sample is replaced by the next of its block, a function of the position,
so that every run replaces alike. Kept out: which block a lane reads when, which is `lanes`'.
"""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import Config
from dcgan_dist.stream.cache import Cache
from dcgan_dist.stream.fetch import Fetch
from dcgan_dist.stream.lanes import Lanes
from dcgan_dist.stream.plan import Plan
from shards.arrays import I64, U8
from shards.dataset.reader import Blocks
from shards.tars.records import Buffer

RING_BATCHES, RING_BYTES = 8, 2**27
"""What the ring holds at most, and three batches at least."""

USED = {"alternate": (False, True), "both": (True,)}
"""Which steps need pictures, by `train.update_rule`: those that update D."""

GLANCE_SECONDS = 0.25
LEAVE_SECONDS = 3.0
log = logging.getLogger("dcgan_dist")


class Feed:
    """The batches of one rank for steps [`first_step`, `stop_step`): `with Feed(...) as f: f.next_batch()`.

    `waited_seconds` is the time that `next_batch` spent waiting; `replaced` counts the damaged samples of the
    batches it gave. Memory is `memory_bytes` at most, and `prefetch_bytes` where storage is remote.

    Step s needs its pictures where `used` says so at s modulo its length. Elsewhere its samples pass in their
    order and are not decoded: what `next_batch` gives is to be ignored.

    With `open_block`, called in place of `blocks.pictures`, `taken` holds what it made of the block of each
    row of the batch, and the number in it.
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
        open_block: Callable[[int, Buffer], Any] | None = None,
    ) -> None:
        self.blocks, self.plan, self.lanes = blocks, plan, lanes
        self.waited_seconds, self.replaced = 0.0, 0
        self._max_bad_fraction, self._warn_after_seconds = max_bad_fraction, warn_after_seconds
        self._used, self._open = used, open_block
        size = blocks.index.image_size
        ahead = min(RING_BATCHES, max(3, RING_BYTES // (len(lanes) * size * size * 3)))
        self._ring = np.empty((ahead, len(lanes), size, size, 3), np.uint8)
        threads = min(threads, len(lanes))
        self._at_once = max(1, ahead // 2)
        self._missing = [threads] * ahead  # threads that have not filled their rows of each slot
        self._bad = [0] * ahead  # replaced samples in each slot
        self._taken: list[list[tuple[Any, int]]] = [[(None, 0)] * len(lanes) for _ in range(ahead)]
        self._first_step, self._stop_step = first_step, stop_step
        self._step = first_step  # the step that the consumer holds or waits for; earlier slots are free
        self._started = False
        self.fetch = Fetch(blocks, requests=requests, window_bytes=prefetch_bytes, cache=cache)
        self._lanes: Lanes[Any] = Lanes(
            blocks,
            plan,
            lanes,
            self.fetch,
            open_block or blocks.pictures,
            first_step=first_step,
            stop_step=stop_step,
        )
        lock = threading.Lock()
        self._room = threading.Condition(lock)  # a slot is free again
        self._ready = threading.Condition(lock)  # the batch that is waited for is there, or never will be
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

    @property
    def taken(self) -> list[tuple[Any, int]]:
        """Of each row of the batch that was given last; see `open_block`."""
        return self._taken[self._step % len(self._ring)]

    def _is_ready(self, slot: int) -> bool:
        return self._error is not None or self._missing[slot] == 0

    def _what_it_waits_for(self) -> str:
        late = self._lanes.late(self._step)
        told = f"rank {self.rank} has waited {self._warn_after_seconds:.0f} s for step {self._step}'s data"
        if late is None:
            return f"{told} and goes on waiting: data.threads={len(self._threads)} may be too few"
        return f"{told} and goes on waiting: for {late}"

    def _work(self, rows: range) -> None:
        """Fill these rows of every batch, of some batches at once."""
        step = self._first_step
        try:
            while step != self._stop_step:
                with self._room:
                    while not (self._closed or step < self._step + len(self._ring)):
                        self._room.wait()
                    stop = min(step + self._at_once, self._step + len(self._ring))
                if self._closed:
                    return
                stop = stop if self._stop_step is None else min(stop, self._stop_step)
                self._lanes.deal(stop - 1)
                bad = np.zeros(stop - step, np.int64)
                for row in rows:
                    self._fill(row, step, bad)
                self._tell_filled(step, bad)
                step = stop
        except BaseException as error:
            with self._ready:
                self._error = self._error or error
                self._ready.notify()

    def _tell_filled(self, first: int, bad: I64) -> None:
        with self._ready:
            for step, replaced in enumerate(bad.tolist(), first):
                slot = step % len(self._ring)
                self._bad[slot] += replaced
                self._missing[slot] -= 1
                if slot == self._step % len(self._ring) and not self._missing[slot]:
                    self._ready.notify()

    def _fill(self, row: int, first: int, bad: I64) -> None:
        """Decode one lane's pictures for the batches from step `first` on; counts replaced ones in `bad`."""
        ahead, done = len(self._ring), 0
        for pictures, wanted, stands_in in self._lanes.take(row, len(bad)):
            steps = range(first + done, first + done + len(wanted))
            if self._open is not None:
                for step, number in zip(steps, wanted, strict=True):
                    self._taken[step % ahead][row] = pictures, number
            used = [at for at, step in enumerate(steps) if self._used[step % len(self._used)]]
            told = pictures.into(
                [wanted[at] for at in used], [self._ring[steps[at] % ahead, row] for at in used]
            )
            self._lanes.tell(list(told.values()))
            bad[done : done + len(wanted)] += stands_in
            for at in () if stands_in else told:
                bad[done + used[at]] += 1
            done += len(wanted)

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
