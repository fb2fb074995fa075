"""What a launcher said of this process: the only place that reads RANK and its friends."""

import ctypes
import os
import signal
import sys
from pathlib import Path

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.launched import BORN
from dcgan_dist.ranks.local import PARENT, STOPS
from dcgan_dist.ranks.rendezvous import Place
from shards import ShardsError
from shards.printable import printable


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


def is_rank() -> bool:
    """Whether a launcher made this process one of its ranks. Raises LaunchError where it was half done."""
    if "RANK" in os.environ:
        return True
    if launched_ranks() > 1:
        raise LaunchError(f"WORLD_SIZE={launched_ranks()}, but RANK is not set; {ENVIRONMENT}")
    return False


def sharing_cores() -> int:
    """How many ranks share the cores that this one may use: torchrun binds none, Slurm gives each its own."""
    return ranks_here() if "TORCHELASTIC_RUN_ID" in os.environ else 1


def ranks_here() -> int:
    """How many ranks are on this machine, as far as the launcher told."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


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


def follow_launcher() -> None:
    """Be sent SIGTERM when what started this process for its ranks dies: it cannot pass a SIGKILL on."""
    if PARENT in os.environ:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    if not {PARENT, "TORCHELASTIC_RUN_ID"} & os.environ.keys() or sys.platform != "linux":
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
    if os.getppid() != int(os.environ.get(PARENT, parent)):
        return True
    # The parent may have died before the first line of ours: whoever takes in orphans has no torch in it.
    try:
        adopts = parent == 1 or Path(f"/proc/{parent}/comm").read_text().strip() == "systemd"
        return adopts and "torch" not in Path(f"/proc/{parent}/maps").read_text()
    except PermissionError:
        return True
    except OSError:
        return False
