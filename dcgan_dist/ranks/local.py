"""Ranks as processes of this machine, without torchrun: `dcgan train demo --ranks 2`.

Signals are handed on to all ranks; where one ends badly the others may say what they saw, and are then ended
too; and all go when this process goes. Nothing here needs torch. Kept out: what a rank does.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dcgan_dist.config.reading import ConfigError
from shards.machine import usable_cores

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
PARENT = "DCGAN_DIST_RANKS_OF"
"""The variable in which a rank finds the process that started it."""
LEAVE_SECONDS, KILL_SECONDS = 30.0, 10.0
"""What ranks have to leave after one has ended badly, and after they were told to."""
LOOK_SECONDS = 0.05


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


def run_ranks(words: Sequence[str], ranks: int) -> int:
    """Run `python WORDS` as each of `ranks` ranks, with their threads divided.

    Returns the exit code of the first that ended badly, which after a signal is 128 and its number, else 0.

    Raises ConfigError in a process that is a rank already.
    """
    if "RANK" in os.environ:
        raise ConfigError(
            f"--ranks {ranks} starts ranks, but this process is one of a launcher's already; "
            "leave out --ranks, or the launcher"
        )
    variables = dict(os.environ) | {PARENT: str(os.getpid())}
    if "MKL_NUM_THREADS" not in variables:
        variables.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // ranks)))
    port = free_port()
    with _received() as received:
        started: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(ranks):
                here = variables | environment(rank, ranks, port=port)
                # In a group of their own, so that Ctrl-C comes to this process alone.
                started.append(subprocess.Popen([sys.executable, *words], env=here, process_group=0))
            return _watch(started, received)
        finally:
            for process in started:
                process.kill()
                process.wait()


@contextmanager
def _received() -> Iterator[list[int]]:
    """The stop signals that came in the block, in which they do nothing else."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda came, _: received.append(came)) for number in STOPS}
    # Ranks that are born now have them held back, until they can take them.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield received
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(started: Sequence["subprocess.Popen[bytes]"], received: list[int]) -> int:
    """Until all have ended."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    code, deadline, told = 0, float("inf"), False
    while None in [process.poll() for process in started]:
        while received:
            number = received.pop(0)
            for process in started:
                process.send_signal(number)
        code = code or next((process.returncode for process in started if process.returncode), 0)
        if code and deadline == float("inf"):
            deadline = time.monotonic() + LEAVE_SECONDS
        if time.monotonic() > deadline:
            for process in started:
                process.kill() if told else process.terminate()
            told, deadline = True, time.monotonic() + KILL_SECONDS
        time.sleep(LOOK_SECONDS)
    code = code or next((process.returncode for process in started if process.returncode), 0)
    return code if code >= 0 else 128 - code
