"""How many images a second this machine gets from a storage, and what limits it.

Random blocks, the same each time, are read and checked, decoded, and both at once as a feed does. Kept out:
the order and the batches of training, torch, and the words for it, which are `limit`'s.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import cycle
from typing import TypeVar

import numpy as np

from shards.dataset import index as indexes
from shards.dataset.reader import Blocks
from shards.errors import ShardsError
from shards.storage import store
from shards.storage.in_order import in_order
from shards.tars.records import Buffer

T = TypeVar("T")

PHASES = 4
HELD_BYTES = 2**24
"""Of blocks that are decoded over and over."""

MAX_THREADS = 1024


@dataclass(frozen=True, slots=True)
class Rate:
    """What was done in `seconds`."""

    blocks: int
    images: int
    bytes: int
    seconds: float
    cpu_seconds: float
    """Of this whole process."""
    latencies: tuple[float, ...]
    """Seconds of each block, rising."""

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds

    def latency(self, share: float) -> float:
        """The seconds that `share` of the blocks did not exceed."""
        return self.latencies[int(share * (len(self.latencies) - 1))]


@dataclass(frozen=True, slots=True)
class Report:
    """The rates of one dataset, and the settings they were measured with.

    `cold` is of local files that are not in memory, `doubled` of remote storage with twice the requests;
    None where there is no such thing.
    """

    encoding: str
    requests: int
    threads: int
    cpus: int
    cold: Rate | None
    reading: Rate
    doubled: Rate | None
    decoding: Rate
    together: Rate


def bench(url: str, *, seconds: float = 10.0, requests: int = 16, threads: int = 2) -> Report:
    """Measure for about `seconds`. Raises ShardsError.

    Remote blocks are read ahead, `requests` at once; local ones by the decoding `threads`, as the feed does.
    """
    if not 0 < seconds <= 3600:
        raise ShardsError(f"--seconds {seconds:g} is outside (0, 3600]; give one inside")
    for name, value in (("requests", requests), ("threads", threads)):
        if not 1 <= value <= MAX_THREADS:
            raise ShardsError(f"--{name} {value} is outside [1, {MAX_THREADS}]; give one inside")
    work, part, local = _Bench(url), seconds / PHASES, store.is_local(url)
    cold = work.read_cold(threads, part) if local else None
    return Report(
        encoding=work.blocks.index.encoding,
        requests=requests,
        threads=threads,
        cpus=os.cpu_count() or 1,
        cold=cold,
        reading=work.read(threads if local else requests, part),
        doubled=None if local else work.read(2 * requests, part),
        decoding=work.decode(threads, part),
        together=work.read_and_decode(requests, threads, part),
    )


class _Bench:
    """The blocks of one dataset in the order in which they are read, and each way to read them."""

    def __init__(self, url: str) -> None:
        self.blocks = Blocks(url, indexes.load(url))
        self._counts = self.blocks.kept_counts
        filled = np.flatnonzero(self._counts)
        if not len(filled):
            raise ShardsError(f"{url}: every sample is marked as removed; there is nothing to measure")
        self._order = [int(block) for block in np.random.default_rng(0).permutation(filled)]

    def read_cold(self, threads: int, seconds: float) -> Rate | None:
        """As `read` once the kernel has let go of the files; None where it cannot be told to.

        What was read then is all that is read afterwards, from memory.
        """
        if not hasattr(os, "posix_fadvise"):
            return None
        for shard in range(len(self.blocks.index.shards)):
            with suppress(OSError):  # reading it will tell
                _forget(self.blocks.shard_url(shard).removeprefix("file://"))
        cold = self._measure(self._read, self._order, threads, seconds)
        self._order = self._order[: cold.blocks]
        return cold

    def read(self, threads: int, seconds: float) -> Rate:
        """Blocks read and checked, so many at once."""
        return self._measure(self._read, cycle(self._order), threads, seconds)

    def decode(self, threads: int, seconds: float) -> Rate:
        """Blocks in memory decoded, again and again."""
        room = np.cumsum([self.blocks.lengths[block] for block in self._order], dtype=np.int64)
        few = self._order[: max(1, int((room <= HELD_BYTES).sum()))]
        with closing(in_order(self.blocks.read, few)) as results:
            held = list(zip(few, results, strict=True))
        return self._measure(self._decode, cycle(held), threads, seconds)

    def read_and_decode(self, requests: int, threads: int, seconds: float) -> Rate:
        """Both at once: remote blocks are read ahead, local ones by the thread that decodes them."""
        order = cycle(self._order)
        if store.is_local(self.blocks.url):
            return self._measure(lambda block: self._decode(self._fetch(block)), order, threads, seconds)
        with closing(in_order(self._fetch, order, threads=requests)) as ahead:
            return self._measure(self._decode, ahead, threads, seconds)

    def _read(self, block: int) -> int:
        self.blocks.read(block)
        return block

    def _fetch(self, block: int) -> tuple[int, Buffer]:
        return block, self.blocks.read(block)

    def _decode(self, fetched: tuple[int, Buffer]) -> int:
        block, data = fetched
        size, count = self.blocks.index.image_size, int(self._counts[block])
        rows = np.empty((count, size, size, 3), np.uint8)
        self.blocks.decode_into(block, data, np.arange(count), rows)
        return block

    def _measure(self, act: Callable[[T], int], turns: Iterable[T], threads: int, seconds: float) -> Rate:
        """`act`, which returns the block it was about, by so many threads until time or turns are up."""
        left, taking, done = iter(turns), threading.Lock(), list[tuple[int, float]]()
        began, cpu = time.perf_counter(), time.process_time()

        def work() -> None:
            while True:
                with taking:
                    turn = next(left, None)
                if turn is None:
                    return
                at = time.perf_counter()
                block = act(turn)
                now = time.perf_counter()
                done.append((block, now - at))
                if now - began > seconds:
                    return

        with ThreadPoolExecutor(threads) as pool:
            for future in [pool.submit(work) for _ in range(threads)]:
                future.result()
        taken, cpu = time.perf_counter() - began, time.process_time() - cpu
        read = np.array([block for block, _ in done])
        latencies = tuple(sorted(latency for _, latency in done))
        images, length = int(self._counts[read].sum()), int(self.blocks.lengths[read].sum(dtype=np.int64))
        return Rate(len(done), images, length, taken, cpu, latencies)


def _forget(path: str) -> None:
    """Have the kernel let go of what it keeps of a file in memory."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
