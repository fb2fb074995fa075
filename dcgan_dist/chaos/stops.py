"""A rank that is stopped (SIGSTOP), as by a machine that hangs: no connection of its ends, and the others
must notice by its silence, name it and leave. Kept out: when to stop which rank, and where the run ends then.
"""

import re
import signal
import time
from collections.abc import Iterator

from dcgan_dist.chaos.local_ranks import LocalRanks

MET = re.compile(r"^\d+ ranks on \d+ node", re.MULTILINE)
"""What rank 0 says once all ranks have met (`ranks.machines.RunsOn`)."""


def stop(ranks: LocalRanks, victim: int, *, seconds: float) -> tuple[bool, bool]:
    """Stop `victim` and wait `seconds` for the others; whether all had met before, and whether they left."""
    had_met = bool(MET.search(ranks.told(0)))
    ranks.signal(signal.SIGSTOP, victim)
    deadline = time.monotonic() + seconds
    while still_there(ranks, victim) and time.monotonic() < deadline:
        time.sleep(0.01)
    return had_met, not still_there(ranks, victim)


def still_there(ranks: LocalRanks, victim: int) -> list[int]:
    """The ranks beside `victim` that have not left."""
    return [rank for rank in others(ranks, victim) if ranks.processes[rank].is_alive()]


def others(ranks: LocalRanks, victim: int) -> list[int]:
    return [rank for rank in range(ranks.ranks) if rank != victim]


def faults(ranks: LocalRanks, victim: int, *, has_ended: bool) -> Iterator[str]:
    """What the others should not have done: each leaves with 1 and names `victim`, silent, in one line; or
    with 0 where the run `has_ended`."""
    for rank in others(ranks, victim):
        code = ranks.processes[rank].exitcode
        if code == 0 and has_ended:
            continue
        errors = [line for line in ranks.told(rank).splitlines() if line.startswith("error: ")]
        named = any(f"lost rank {victim} silent for " in line for line in errors)
        if code != 1 or len(errors) != 1 or not named:
            said = "; ".join(errors) or "nothing"
            yield f"rank {victim} was stopped: rank {rank} left with {code} and said: {said}"
