"""Training under torchrun, which starts its ranks again after one was killed (Linux).

Kept out: when to kill, and what should come of it.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


def ranks_of(agent: int) -> dict[int, int]:
    """The process of each rank that the torchrun with this process number has now."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(") ")[2].split()[1]
            variables = (process / "environ").read_bytes().split(b"\0") if parent == str(agent) else []
        except OSError:  # it has ended
            continue
        rank = next((line for line in variables if line.startswith(b"RANK=")), None)
        if rank is not None:
            found[int(rank.removeprefix(b"RANK="))] = int(process.name)
    return found


class Torchrun:
    """`torchrun --nproc-per-node RANKS --max-restarts N -m dcgan_dist.train ARGUMENTS`, with no variable of
    ours but that each rank has one thread; all of it dies with the block."""

    def __init__(self, arguments: Sequence[str], ranks: int, *, restarts: int) -> None:
        options = [f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]
        runner = [sys.executable, "-m", "torch.distributed.run", *options]
        self._command = [*runner, "-m", "dcgan_dist.train", *arguments]
        self.ranks = ranks

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile(prefix="dcgan_dist-torchrun-")
        variables = os.environ | {"OMP_NUM_THREADS": "1"}
        self._agent = subprocess.Popen(
            self._command, stdout=self._log, stderr=subprocess.STDOUT, env=variables
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        left = ranks_of(self._agent.pid).values()
        for process in [self._agent.pid, *left] if self._agent.poll() is None else []:
            os.kill(process, signal.SIGKILL)
        self._agent.wait()
        self._log.close()

    @property
    def running(self) -> bool:
        return self._agent.poll() is None

    @property
    def processes(self) -> dict[int, int]:
        """By rank, of the attempt under way."""
        return ranks_of(self._agent.pid)

    def has_started(self, before: Collection[int]) -> bool:
        """Whether all ranks are there, none of them a process of an attempt `before`."""
        there = self.processes.values()
        return len(there) == self.ranks and not set(there) & set(before)

    def wait(self, seconds: float) -> int:
        """torchrun's exit code. Raises TimeoutError."""
        try:
            return self._agent.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"torchrun is still there after {seconds:.0f} s") from None

    @property
    def last(self) -> str:
        """The last error that a rank told, or the last line of all."""
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines() or ["nothing"]
        return [*said[-1:], *(line for line in said if line.startswith("error: "))][-1]
