"""Who am I, and how do I speak with the others: the only place that reads RANK and its friends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from dcgan_dist.settings import ConfigError


@dataclass(frozen=True)
class World:
    """A process among `ranks`; `group` is None when it is alone."""

    rank: int
    ranks: int
    device: torch.device
    group: dist.ProcessGroup | None

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks of a small tensor, in place."""
        self.sum(values)
        values /= self.ranks
        return values

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if self.group is not None:
            dist.all_reduce(values, group=self.group)
        return values

    def share(self, items: int) -> range:
        """This rank's part of `items` pieces of work, near equal and in order."""
        return range(self.rank * items // self.ranks, (self.rank + 1) * items // self.ranks)

    def gather(self, values: Tensor) -> Tensor:
        """A small float64 vector of every rank: (n,) -> (ranks, n)."""
        table = torch.zeros(self.ranks, len(values), dtype=torch.float64, device=self.device)
        table[self.rank] = values.to(table)
        if self.group is not None:
            dist.all_reduce(table, group=self.group)
        return table


def launched_rank() -> int:
    """This process's rank as torchrun or Slurm set it; 0 without them."""
    return int(os.environ.get("RANK", "0"))


def launched_ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def choose_device(wanted: str) -> torch.device:
    """`auto`, `cpu` or `cuda` -> the device of this rank. Raises ConfigError."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device=cuda, but torch sees no GPU; choose cpu, or install a CUDA build of torch")
    # Several ranks may share one card: then gloo carries their sums, see `join`.
    return torch.device("cuda", local_rank() % torch.cuda.device_count())


@contextmanager
def join(*, device: str, timeout_seconds: float) -> Iterator[World]:
    """The world of this process, left again at the end of the block."""
    rank, ranks, here = launched_rank(), launched_ranks(), choose_device(device)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if "RANK" not in os.environ:
        yield World(rank=0, ranks=1, device=here, group=None)
        return
    crowded = here.type == "cuda" and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
    backend = "nccl" if here.type == "cuda" and not crowded else "gloo"
    dist.init_process_group(
        backend,
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=timeout_seconds),
        device_id=here if backend == "nccl" else None,
    )
    try:
        yield World(rank=rank, ranks=ranks, device=here, group=dist.group.WORLD)
    finally:
        dist.destroy_process_group()
