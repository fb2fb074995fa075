"""A process among its ranks: how it joins them, speaks with them and leaves them."""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]

from dcgan_dist.gan.exchange import gather
from dcgan_dist.ranks import launcher
from dcgan_dist.ranks.determinism import Determinism, prepare
from dcgan_dist.ranks.devices import choose_device
from dcgan_dist.ranks.lost import Rollcall, is_loss
from dcgan_dist.ranks.machines import RunsOn, crowded, runs_on, seat, share_cores
from dcgan_dist.ranks.rendezvous import Place, meet
from dcgan_dist.ranks.stopping import ignore_signals


@dataclass(frozen=True)
class World:
    """A process among `ranks`; `group`, their `store` and the `rollcall` are None when it is alone.

    `tell` is called with an error of training before anything is cleaned up, and may print it.
    """

    rank: int
    ranks: int
    device: torch.device
    group: dist.ProcessGroup | None
    store: Store | None = None
    rollcall: Rollcall | None = None
    runs_on: RunsOn | None = None
    tell: Callable[[BaseException], object] = lambda error: None

    @classmethod
    def alone(cls, device: str = "cpu") -> "World":
        """A process that knows of no others."""
        return cls(rank=0, ranks=1, device=choose_device(device, local_rank=0, ranks=1), group=None)

    def begin(self, step: int) -> None:
        """This rank has all that it needs for `step`, the words of other ranks apart."""
        if self.rollcall is not None:
            self.rollcall.begin(step)

    def part(self) -> None:
        """No more collectives: a step was given up, and some ranks may have begun it."""
        if self.rollcall is not None:
            self.rollcall.parted = True
            self.rollcall.leaving()

    @contextmanager
    def leaving_at_error(self) -> Iterator[None]:
        """After an error of the block it is told of at once; then this process is cleaning up, and nobody may
        end it for waiting."""
        try:
            yield
        except BaseException as error:
            if not (self.rollcall is not None and is_loss(error)):  # of which more is known later
                self.tell(error)
            if self.rollcall is not None:
                self.rollcall.leaving(error)
            raise

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
        return gather(values, self.group)

    def agree(self, number: int) -> int:
        """The `number` of rank 0, on every rank."""
        own = torch.tensor([number if self.rank == 0 else 0], dtype=torch.int64, device=self.device)
        return int(self.gather(own)[0])


CLOSING, CLOSING_SECONDS = "closing the process group", 2.0


@contextmanager
def join(
    *,
    device: str,
    timeout_seconds: float,
    facts: Mapping[str, str] | None = None,
    owns_process: bool = True,
    determinism: Determinism = "warn",
    allow_tf32: bool = False,
    tell: Callable[[BaseException], object] = lambda error: None,
) -> Iterator[World]:
    """The world of this process, left by all ranks together at the end of the block.

    `facts` must be the same on all ranks. `owns_process` says that the process is there for this alone, and
    may be ended where it waits for a rank that is gone. `determinism` and `allow_tf32` are of GPUs; `tell` is
    World's. Raises ConfigError, NotMetError where the ranks do not come together, and LostRanksError where
    another rank went away later.
    """
    ranks = launcher.launched_ranks()
    prepare(determinism, allow_tf32=allow_tf32)
    here = choose_device(device, local_rank=launcher.local_rank(), ranks=ranks)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if not launcher.is_rank():
        yield World(0, 1, here, group=None, runs_on=runs_on([seat(here)], ""), tell=tell)
        return
    launcher.follow_launcher()
    share_cores(launcher.ranks_here())
    where = launcher.place()
    own = {"device": here.type, "torch": torch.__version__}
    met = meet(where, {**own, **(facts or {})}, seconds=timeout_seconds, seat=seat(here))
    backend = "nccl" if here.type == "cuda" and not crowded(met.seats) else "gloo"
    rollcall = Rollcall(met.lines, rank=where.rank, owns_process=owns_process, hang_seconds=timeout_seconds)
    clean = False
    try:
        _open_group(backend, where, met.store, here, timeout_seconds)
        about = runs_on(met.seats, backend)
        world = World(where.rank, ranks, here, dist.group.WORLD, met.store, rollcall, about, tell)
        yield world
        if not rollcall.parted:
            world.agree(0)  # what any rank still does at its end has been done, or it is lost
        clean = True
    except BaseException as error:
        rollcall.after(error)
        raise
    else:
        rollcall.close()
    finally:
        _close_group(clean)


def _open_group(backend: str, where: Place, store: Store, here: torch.device, seconds: float) -> None:
    if backend == "nccl":
        # Its watchdog sleeps four times as long before it ends a process whose collective took too long.
        os.environ.setdefault("TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "1000")
    with _at_home(where):
        dist.init_process_group(
            backend,
            store=store,
            rank=where.rank,
            world_size=where.ranks,
            timeout=timedelta(seconds=seconds),
            device_id=here if backend == "nccl" else None,
        )


def _close_group(clean: bool) -> None:
    """After an error NCCL's may wait for other ranks for ever: then it is left behind, see `leave`."""
    if not dist.is_initialized():
        return
    if clean:
        dist.destroy_process_group()
        return
    closing = threading.Thread(target=dist.destroy_process_group, name=CLOSING, daemon=True)
    closing.start()
    closing.join(CLOSING_SECONDS)


def leave(code: int) -> NoReturn:
    """End this process, which does nothing else, with exit code `code`, whatever its group waits for."""
    ignore_signals()
    if any(thread.name == CLOSING for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


@contextmanager
def _at_home(where: Place) -> Iterator[None]:
    """Ranks of one machine listen where no other machine reaches them."""
    name = "GLOO_SOCKET_IFNAME"
    if not where.local or name in os.environ or "lo" not in {found for _, found in socket.if_nameindex()}:
        yield
        return
    os.environ[name] = "lo"
    try:
        yield
    finally:
        del os.environ[name]
