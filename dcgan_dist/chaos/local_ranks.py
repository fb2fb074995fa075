"""Training as processes of this machine, one per rank and without torchrun, so that each can be killed.

They come from a process that has imported everything once, so that a start takes a moment.
"""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from tqdm import tqdm

from dcgan_dist.ranks.local import environment, free_port
from dcgan_dist.ranks.world import leave
from dcgan_dist.train import own_process

_context = multiprocessing.get_context("forkserver")


def warm_up() -> None:
    """Import everything once, so that the first start takes no longer than others."""
    _context.set_forkserver_preload(["dcgan_dist.train", "dcgan_dist.training.trainer"])
    process = _context.Process(target=int)
    process.start()
    process.join()


class LocalRanks:
    """`python -m dcgan_dist.train ARGUMENTS` on `ranks` processes; whatever is left dies with the block."""

    def __init__(self, arguments: Sequence[str], ranks: int) -> None:
        self.arguments, self.ranks = list(arguments), ranks

    def __enter__(self) -> Self:
        _context.set_forkserver_preload(["dcgan_dist.train", "dcgan_dist.training.trainer"])
        self._folder = tempfile.TemporaryDirectory(prefix="dcgan_dist-ranks-")
        port = free_port()
        self.began = time.monotonic()
        variables = dict(os.environ)  # the process that ranks come from has the environment of its own start
        self.processes = [
            _context.Process(
                target=_work,
                args=(
                    self.arguments,
                    variables | environment(rank, self.ranks, port=port),
                    str(self._log(rank)),
                ),
                daemon=True,
            )
            for rank in range(self.ranks)
        ]
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        self._folder.cleanup()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began

    @property
    def running(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    def signal(self, number: signal.Signals, *ranks: int) -> None:
        """Send `number` to these ranks."""
        for rank in ranks:
            process = self.processes[rank]
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    def wait(self, seconds: float) -> list[int]:
        """Exit codes, by rank. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                left = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
                raise TimeoutError(f"ranks {left} are still there after {seconds:.0f} s")
            time.sleep(0.005)
        return [process.exitcode or 0 for process in self.processes]

    def told(self, rank: int) -> str:
        """What a rank has printed."""
        return self._log(rank).read_text(errors="replace") if self._log(rank).exists() else ""

    def _log(self, rank: int) -> Path:
        return Path(self._folder.name) / f"rank-{rank}"


def _work(arguments: list[str], variables: dict[str, str], log: str) -> None:
    os.environ |= variables
    told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(told, stream)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    leave(own_process(arguments))
