"""Training as processes of this machine, one per rank and without torchrun, so that each can be killed."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from dcgan_dist.world import environment


class LocalRanks:
    """`python -m dcgan_dist.train ARGUMENTS` on `ranks` processes; whatever is left dies with the block."""

    def __init__(self, arguments: Sequence[str], ranks: int) -> None:
        self.arguments, self.ranks = list(arguments), ranks

    def __enter__(self) -> Self:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._told = [tempfile.TemporaryFile() for _ in range(self.ranks)]  # noqa: SIM115
        self.began = time.monotonic()
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "dcgan_dist.train", *self.arguments],
                env=os.environ | {"OMP_NUM_THREADS": "1"} | environment(rank, self.ranks, port=port),
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.STDOUT,
            )
            for rank, told in enumerate(self._told)
        ]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        for told in self._told:
            told.close()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began

    @property
    def running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def signal(self, number: signal.Signals, *ranks: int) -> None:
        """Send `number` to these ranks."""
        for rank in ranks:
            self.processes[rank].send_signal(number)

    def wait(self, seconds: float) -> list[int]:
        """Exit codes, by rank. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                left = [rank for rank, process in enumerate(self.processes) if process.poll() is None]
                raise TimeoutError(f"ranks {left} are still there after {seconds:.0f} s")
            time.sleep(0.005)
        return [process.returncode for process in self.processes]

    def told(self, rank: int) -> str:
        """What a rank has printed."""
        self._told[rank].seek(0)
        return self._told[rank].read().decode(errors="replace")
