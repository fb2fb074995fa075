"""Who am I, and how do I speak with the others: the only place that reads RANK and its friends."""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from dcgan_dist.devices import choose_device
from dcgan_dist.rollcall import Rollcall


@dataclass(frozen=True)
class World:
    """A process among `ranks`; `group`, and the `store` they met at, are None when it is alone."""

    rank: int
    ranks: int
    device: torch.device
    group: dist.ProcessGroup | None
    store: Store | None = None

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
        """A small tensor of every rank, of any type, on this rank's device: (...) -> (ranks, ...)."""
        values = values.to(self.device)
        if self.group is None:
            return values[None]
        found = [torch.empty_like(values) for _ in range(self.ranks)]
        dist.all_gather(found, values, group=self.group)
        return torch.stack(found)

    def agree(self, number: int) -> int:
        """The `number` of rank 0, on every rank."""
        own = torch.tensor([number if self.rank == 0 else 0], dtype=torch.int64, device=self.device)
        return int(self.gather(own)[0])


ALONE = World(rank=0, ranks=1, device=torch.device("cpu"), group=None)
"""A process that knows of no others."""


def launched_rank() -> int:
    """This process's rank as torchrun or Slurm set it; 0 without them."""
    return int(os.environ.get("RANK", "0"))


def launched_ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def free_port() -> int:
    """A port of this machine that nobody listens at now, for ranks to meet at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, ranks: int, *, port: int) -> dict[str, str]:
    """What makes a process `rank` of `ranks` on this machine, as a launcher would."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def follow_launcher() -> None:
    """Be sent SIGTERM when the torchrun that started this process dies: it cannot pass a SIGKILL on."""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        pr_set_pdeathsig = 1  # sys/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


@contextmanager
def join(*, device: str, timeout_seconds: float) -> Iterator[World]:
    """The world of this process, left by all ranks together at the end of the block.

    Raises LostRanksError where another rank went away before.
    """
    rank, ranks = launched_rank(), launched_ranks()
    here = choose_device(device, local_rank=local_rank(), ranks=ranks)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if "RANK" not in os.environ:
        yield World(rank=0, ranks=1, device=here, group=None)
        return
    follow_launcher()
    crowded = here.type == "cuda" and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
    backend = "nccl" if here.type == "cuda" and not crowded else "gloo"
    limit = timedelta(seconds=timeout_seconds)
    store: Store = next(rendezvous("env://", rank, ranks, timeout=limit))[0]
    host = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    dist.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=ranks,
        timeout=limit,
        device_id=here if backend == "nccl" else None,
    )
    rollcall = Rollcall(store, host, rank=rank, ranks=ranks)
    world = World(rank=rank, ranks=ranks, device=here, group=dist.group.WORLD, store=store)
    try:
        yield world
        world.agree(0)  # what any rank still does at its end has been done, or it is lost
    except Exception as error:
        rollcall.after(error)
        raise
    finally:
        rollcall.close()
        dist.destroy_process_group()
