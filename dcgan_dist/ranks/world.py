"""Who am I, and how do I speak with the others: the only place that reads RANK and its friends."""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.gan.exchange import gather
from dcgan_dist.launched import BORN
from dcgan_dist.ranks.determinism import Determinism, prepare
from dcgan_dist.ranks.devices import choose_device
from dcgan_dist.ranks.lost import Rollcall
from dcgan_dist.ranks.rendezvous import Place, meet
from shards import ShardsError
from shards.printable import printable


@dataclass(frozen=True)
class World:
    """A process among `ranks`; `group`, their `store` and the `rollcall` are None when it is alone."""

    rank: int
    ranks: int
    device: torch.device
    group: dist.ProcessGroup | None
    store: Store | None = None
    rollcall: Rollcall | None = None

    def part(self) -> None:
        """No more collectives: a step was given up, and some ranks may have begun it."""
        if self.rollcall is not None:
            self.rollcall.parted = True
            self.rollcall.leaving()

    @contextmanager
    def leaving_at_error(self) -> Iterator[None]:
        """After an error of the block this process is cleaning up, and nobody may end it for waiting."""
        try:
            yield
        except BaseException:
            if self.rollcall is not None:
                self.rollcall.leaving()
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


ALONE = World(rank=0, ranks=1, device=torch.device("cpu"), group=None)
"""A process that knows of no others."""


class LaunchError(ConfigError):
    """What a launcher said of this process makes no sense; each process that finds so tells it."""


# A launcher's number of processes, and which of them this one is.
LAUNCHERS = {
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "mpirun (MVAPICH)": ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    "mpiexec": ("PMI_SIZE", "PMI_RANK"),
}
SLURM_NO_STEP = range(0xFFFFFFF0, 2**32)
"""Ids of what is no step of srun's: a batch script, the shell of salloc."""


def foreign_task() -> tuple[str, int, int] | None:
    """The launcher other than ours that started several processes, which of them this is, and how many."""
    for launcher, (count, which) in LAUNCHERS.items():
        told = os.environ.get(count) or (os.environ.get("SLURM_NTASKS", "") if launcher == "srun" else "")
        task = os.environ.get(which, "")
        if not told.isdecimal() or not task.isdecimal() or int(told) < 2:
            continue
        step = os.environ.get("SLURM_STEP_ID", "")
        # A batch script is task 0 of its job too, and salloc's shell knows the number of tasks.
        if launcher != "srun" or (step.isdecimal() and int(step) not in SLURM_NO_STEP) or int(task):
            return launcher, int(task), int(told)
    return None


def launched_rank() -> int:
    """This process's rank as far as its launcher told; 0 without one."""
    told = os.environ.get("RANK")
    if told is None:
        task = foreign_task()
        return task[1] if task else 0
    return int(told) if told.isdecimal() else 0


def launched_ranks() -> int:
    """How many ranks a launcher started. Raises ConfigError where its words make no sense."""
    if "RANK" not in os.environ:
        task = foreign_task()
        if task:
            raise ConfigError(
                f"{task[0]} started {task[2]} processes, but RANK is not set: each would be a run of its own "
                "in the same folder; use torchrun --nproc-per-node N -m ..., or on Slurm "
                "python launch/slurm.py train"
            )
        return _number("WORLD_SIZE", 1)
    rank, ranks = _number("RANK"), _number("WORLD_SIZE")
    if rank >= ranks:
        raise LaunchError(f"RANK={rank} must be less than WORLD_SIZE={ranks}; {ENVIRONMENT}")
    return ranks


ENVIRONMENT = "torchrun and launch/slurm.py set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT"


def _number(name: str, default: int | None = None) -> int:
    """A whole number of the environment. Raises LaunchError."""
    told = os.environ.get(name)
    if told is None and default is not None:
        return default
    if told is None or not told.isdecimal():
        shown = "is not set" if told is None else f"={printable(told)} is not a whole number"
        raise LaunchError(f"{name}{'' if told is not None else ' '}{shown}; {ENVIRONMENT}")
    return int(told)


def local_rank() -> int:
    return _number("LOCAL_RANK", 0)


def place() -> Place:
    """Where the ranks meet, as the launcher says. Raises LaunchError."""
    ranks, host = launched_ranks(), os.environ.get("MASTER_ADDR", "")
    if not host:
        raise LaunchError(f"MASTER_ADDR is not set; {ENVIRONMENT}")
    port = _number("MASTER_PORT")
    if not 0 < port < 2**16:
        raise LaunchError(f"MASTER_PORT={port} is no port; {ENVIRONMENT}")
    return Place(
        rank=launched_rank(),
        ranks=ranks,
        host=host,
        port=port,
        local=_number("LOCAL_WORLD_SIZE", 0) == ranks,
        agent=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True),
    )


def tells(error: Exception, *, anyone: bool = False) -> bool:
    """Whether this process is the one to tell of an error: rank 0 of what all ranks meet, a node's first of
    what its storage does, and `anyone` of what may be its own."""
    if launched_rank() == 0 or anyone or isinstance(error, LaunchError):
        return True
    return isinstance(error, ShardsError) and os.environ.get("LOCAL_RANK") == "0"


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
    if "TORCHELASTIC_RUN_ID" not in os.environ or sys.platform != "linux":
        return
    pr_set_pdeathsig = 1  # sys/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if _is_orphan():  # it died while this process imported torch
        os.kill(os.getpid(), signal.SIGTERM)


def _is_orphan() -> bool:
    """Whether the parent is no longer the one that this process was born to."""
    process, parent = BORN
    if os.getpid() != process:
        return False
    if os.getppid() != parent:
        return True
    # The parent may have died before the first line of ours: whoever takes in orphans has no torch in it.
    try:
        adopts = parent == 1 or Path(f"/proc/{parent}/comm").read_text().strip() == "systemd"
        return adopts and "torch" not in Path(f"/proc/{parent}/maps").read_text()
    except PermissionError:
        return True
    except OSError:
        return False


@contextmanager
def join(
    *,
    device: str,
    timeout_seconds: float,
    facts: Mapping[str, str] | None = None,
    owns_process: bool = True,
    determinism: Determinism = "warn",
    allow_tf32: bool = False,
) -> Iterator[World]:
    """The world of this process, left by all ranks together at the end of the block.

    `facts` must be the same on all ranks. `owns_process` says that the process is there for this alone, and
    may be ended where it waits for a rank that is gone. `determinism` and `allow_tf32` are of GPUs.
    Raises ConfigError, NotMetError where the ranks do not come together, and LostRanksError where another
    rank went away later.
    """
    ranks = launched_ranks()
    prepare(determinism, allow_tf32=allow_tf32)
    here = choose_device(device, local_rank=local_rank(), ranks=ranks)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if "RANK" not in os.environ:
        if ranks > 1:
            raise LaunchError(f"WORLD_SIZE={ranks}, but RANK is not set; {ENVIRONMENT}")
        yield World(rank=0, ranks=1, device=here, group=None)
        return
    follow_launcher()
    crowded = here.type == "cuda" and _number("LOCAL_WORLD_SIZE", 1) > torch.cuda.device_count()
    backend = "nccl" if here.type == "cuda" and not crowded else "gloo"
    where = place()
    own = {"device": here.type, "backend": backend, "torch": torch.__version__}
    met = meet(where, {**own, **(facts or {})}, seconds=timeout_seconds)
    rollcall = Rollcall(met.lines, rank=where.rank, owns_process=owns_process)
    try:
        with _at_home(where):
            dist.init_process_group(
                backend,
                store=met.store,
                rank=where.rank,
                world_size=ranks,
                timeout=timedelta(seconds=timeout_seconds),
                device_id=here if backend == "nccl" else None,
            )
        world = World(where.rank, ranks, here, dist.group.WORLD, met.store, rollcall)
        yield world
        if not rollcall.parted:
            world.agree(0)  # what any rank still does at its end has been done, or it is lost
    except BaseException as error:
        rollcall.after(error)
        raise
    else:
        rollcall.close()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


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
