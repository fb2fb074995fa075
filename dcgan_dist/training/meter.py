"""The figures beside the losses: speed, memory, and what storage was asked for, of every rank.

Kept out: where they are shown.
"""

import time

import torch

from dcgan_dist.ranks.world import World
from dcgan_dist.stream.feed import Feed
from shards.machine import peak_memory_bytes
from shards.storage import store


class Meter:
    """Speed since the last reading, and what storage was asked for since the start of each process.

    `by_rank` holds what each rank said at the last reading.
    """

    def __init__(self, feed: Feed, here: World, batch_images: int) -> None:
        self.feed, self.here, self.batch_images = feed, here, batch_images
        self.by_rank: dict[str, list[float]] = {}
        self._restart()

    def _restart(self) -> None:
        self._steps, self._began, self._waited = 0, time.perf_counter(), self.feed.waited_seconds

    def tick(self) -> None:
        self._steps += 1

    def read(self, step: int) -> dict[str, float]:
        """Figures since the last reading, and a new start; all ranks must call it.

        Raises ConfigError where more damaged samples were replaced than may be.
        """
        seconds = time.perf_counter() - self._began
        own = self._own(seconds)
        table = self.here.gather(torch.tensor(list(own.values()), dtype=torch.float64)).cpu()
        self.by_rank = dict(zip(own, table.T.tolist(), strict=True))
        told = {name: sum(values) for name, values in self.by_rank.items()}
        self.feed.check_replaced(int(told["data/replaced"]))
        # The run is as fast as its slowest rank.
        for name in ("speed/data_wait_share", "memory/process_bytes", "memory/gpu_bytes"):
            if name in told:
                told[name] = max(self.by_rank[name])
        told["speed/images_per_second"] = self._steps * self.batch_images / seconds
        told["speed/step_seconds"] = seconds / self._steps
        told["data/images_seen"] = float(step * self.batch_images)
        self._restart()
        return told

    def _own(self, seconds: float) -> dict[str, float]:
        """What this rank has to say."""
        storage, fetch = store.counters.snapshot(), self.feed.fetch
        told = {
            "speed/data_wait_share": (self.feed.waited_seconds - self._waited) / seconds,
            "data/replaced": self.feed.replaced,
            "storage/requests": storage.requests,
            "storage/retries": storage.retries,
            "storage/hedges": fetch.hedges,
            "storage/read_bytes": storage.read_bytes,
            "memory/process_bytes": peak_memory_bytes(),
        }
        if self.here.device.type == "cuda":
            # What torch keeps for itself, used or not: what another process cannot have.
            told["memory/gpu_bytes"] = torch.cuda.max_memory_reserved(self.here.device)
        if fetch.cache:
            told |= {"cache/hits": fetch.cache.hits, "cache/misses": fetch.cache.misses}
        return {name: float(value) for name, value in told.items()}
