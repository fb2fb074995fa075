"""Reads the blocks of spans before they are needed: many reads in flight, neighbours of a shard in one,
stragglers asked for a second time.

A disk of this machine is read when the block is needed; the kernel reads ahead there. Threads are daemons, so
that a read which storage never answers keeps no process alive. Kept out: tries and timeouts, which are the
store's, and what the bytes mean.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import islice
from weakref import WeakValueDictionary

from dcgan_dist.stream.cache import Cache
from dcgan_dist.stream.plan import Span
from shards import ShardsError
from shards.dataset.reader import Blocks
from shards.errors import DamagedError
from shards.storage import store
from shards.tars.records import Buffer

RUN_BYTES = 2**22
"""The longest read of neighbouring blocks."""

HEDGE_AFTER_SECONDS = 0.5
HEDGE_AFTER_TIMES = 4.0
"""A read is a straggler when it takes so many times as long as nine in ten do, and no less than that."""

HEDGE_SHARE = 0.05
"""Second requests, at most, as a share of all; more would burden a storage that is slow for everyone."""

HEDGE_THREADS = 4
GLANCE_SECONDS = 0.1

Data = Callable[[], Buffer]


class _Wanted:
    """A block on its way."""

    def __init__(self, block: int) -> None:
        self.block = block
        self.found: Future[Buffer] = Future()
        self.began: float | None = None  # when it was asked for first
        self.hedged = False
        self.under_way = 1


class Fetch:
    """Reads for one feed; `hedges` counts second requests, `reads` all."""

    def __init__(
        self, blocks: Blocks, *, requests: int, window_bytes: int, cache: Cache | None = None
    ) -> None:
        self.blocks, self.cache = blocks, cache
        self.reads = self.hedges = 0
        # A small dataset is not read ahead over many epochs; blocks cut by a lane's border count twice.
        self._window_bytes = min(window_bytes, 2 * int(blocks.lengths.sum()))
        self._ahead = cache is not None or not store.is_local(blocks.url)
        self._lock = threading.Lock()
        self._closed = False
        self._seconds: deque[float] = deque(maxlen=256)
        self._live: WeakValueDictionary[int, _Wanted] = WeakValueDictionary()
        self._runs: queue.SimpleQueue[list[_Wanted] | None] = queue.SimpleQueue()
        self._again: queue.SimpleQueue[_Wanted | None] = queue.SimpleQueue()
        if self._ahead:
            for work in [self._work] * requests + [self._work_again] * HEDGE_THREADS:
                threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        """Ask for nothing more; reads under way are left to end by themselves."""
        self._closed = True
        if self.cache:
            self.cache.close()
        # Each thread that ends wakes the next.
        self._runs.put(None)
        self._again.put(None)

    def follow(self, spans: Iterator[tuple[int, Span]]) -> Iterator[tuple[int, Span, Data]]:
        """Each span with the call that waits for its block's bytes; one thread at a time may iterate."""
        if not self._ahead:
            for at, span in spans:
                yield at, span, partial(self._read_run, range(span.block, span.block + 1))
            return
        window: deque[tuple[int, Span, _Wanted]] = deque()
        held, ended = 0, False
        while window or not ended:
            while held <= self._window_bytes // 2 and not ended:
                fresh = self._take(spans, self._window_bytes - held)
                held += sum(int(self.blocks.lengths[span.block]) for _, span in fresh)
                window.extend(self._ask(fresh))
                ended = not fresh
            if window:
                at, span, wanted = window.popleft()
                held -= int(self.blocks.lengths[span.block])
                yield at, span, partial(self._wait, wanted)
                del wanted  # from here on the receiver alone holds its bytes

    def _take(self, spans: Iterator[tuple[int, Span]], room_bytes: int) -> list[tuple[int, Span]]:
        """The next spans, as many as there is room for and at least one."""
        taken: list[tuple[int, Span]] = []
        for at, span in islice(spans, max(1, room_bytes)):
            taken.append((at, span))
            room_bytes -= int(self.blocks.lengths[span.block])
            if room_bytes <= 0:
                break
        return taken

    def _ask(self, spans: list[tuple[int, Span]]) -> list[tuple[int, Span, _Wanted]]:
        """Put the reads of these spans under way, the one needed first first."""
        fresh: dict[int, _Wanted] = {}
        asked = []
        for at, span in spans:
            wanted = self._live.get(span.block) or fresh.setdefault(span.block, _Wanted(span.block))
            asked.append((at, span, wanted))
        self._live.update(fresh)
        for run in self._runs_of(list(fresh)):
            self._runs.put([fresh[block] for block in run])
        return asked

    def _runs_of(self, blocks: list[int]) -> list[range]:
        """Neighbours of one shard together, in the order in which the first of each is needed."""
        need = {block: turn for turn, block in enumerate(blocks)}
        runs: list[range] = []
        for block in sorted(blocks):
            last = runs[-1] if runs else range(-1, -1)
            start, stop = self.blocks.place(last.start), self.blocks.place(block)
            near = block == last.stop and start.shard == stop.shard
            if near and stop.stop - start.start <= RUN_BYTES:
                runs[-1] = range(last.start, block + 1)
            else:
                runs.append(range(block, block + 1))
        return sorted(runs, key=lambda run: min(need[block] for block in run))

    def _wait(self, wanted: _Wanted) -> Buffer:
        """The bytes of a block, asked for again if they take too long."""
        while True:
            try:
                return wanted.found.result(GLANCE_SECONDS)
            except TimeoutError:
                if self._closed:
                    raise ShardsError("the feed was closed") from None
            if self._is_straggler(wanted):
                with self._lock:
                    wanted.hedged = True
                    wanted.under_way += 1
                    self.hedges += 1
                self._again.put(wanted)

    def _is_straggler(self, wanted: _Wanted) -> bool:
        if wanted.hedged or wanted.began is None or self.hedges > HEDGE_SHARE * self.reads:
            return False
        usual = sorted(self._seconds)[len(self._seconds) * 9 // 10] if self._seconds else 0.0
        return time.monotonic() - wanted.began > max(HEDGE_AFTER_SECONDS, HEDGE_AFTER_TIMES * usual)

    def _work(self) -> None:
        while (run := self._runs.get()) is not None and not self._closed:
            self._serve(run)
            run.clear()  # from here on the receivers alone hold its bytes
        self._runs.put(None)

    def _serve(self, run: list[_Wanted]) -> None:
        missing = {wanted.block: wanted for wanted in run}
        if self.cache:
            for wanted in run:
                kept = self.cache.get(wanted.block)
                if kept is not None:
                    self._settle(missing.pop(wanted.block), kept)
        for blocks in self._runs_of(list(missing)):
            self._read([missing[block] for block in blocks])

    def _read(self, run: list[_Wanted]) -> None:
        blocks, began = range(run[0].block, run[-1].block + 1), time.monotonic()
        for wanted in run:
            wanted.began = began
        try:
            data = self._read_run(blocks)
        except Exception as error:
            for wanted in run:
                # Which of several is damaged, only reading them one by one can tell.
                if isinstance(error, DamagedError) and len(run) > 1:
                    self._read([wanted])
                else:
                    self._fail(wanted, error)
            return
        self._seconds.append(time.monotonic() - began)
        for wanted, part in zip(run, self.blocks.cut(blocks, data), strict=True):
            whole = bytes(part) if len(run) > 1 else data  # so that no block keeps its neighbours in memory
            self._settle(wanted, whole)
            if self.cache:
                self.cache.put(wanted.block, whole)

    def _work_again(self) -> None:
        while (wanted := self._again.get()) is not None and not self._closed:
            try:
                self._settle(wanted, self._read_run(range(wanted.block, wanted.block + 1)))
            except Exception as error:
                self._fail(wanted, error)
        self._again.put(None)

    def _read_run(self, run: range) -> bytes:
        with self._lock:
            self.reads += 1
        return self.blocks.read_run(run)

    def _settle(self, wanted: _Wanted, data: Buffer) -> None:
        with self._lock:
            wanted.under_way -= 1
            if not wanted.found.done():
                wanted.found.set_result(data)

    def _fail(self, wanted: _Wanted, error: Exception) -> None:
        """The error counts only if no other request for the block is under way."""
        with self._lock:
            wanted.under_way -= 1
            if wanted.under_way == 0 and not wanted.found.done():
                wanted.found.set_exception(error)
