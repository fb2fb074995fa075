"""Whether the other ranks still run: each says so every second, and silence is a loss like any other.

A process that is stopped (SIGSTOP), or whose machine or network hangs, closes no connection, and a collective
waits for it without a word, on NCCL for ever. A rank whose process runs but whose step does not come on is
told of after the time that collectives have. Kept out: what is done about it.
"""

import time
from collections.abc import Iterable

BEAT_SECONDS = 1.0
SILENT_SECONDS = 9.0
"""Long beside what holds up a thread of a rank that works; the others leave within 15 s of the last word."""
ASLEEP_SECONDS = 3.0
"""Who has not looked for so long was stopped itself, perhaps with all others, and has not heard what came."""


class Beats:
    """What one rank has heard of `ranks`, and the step that each has begun."""

    def __init__(self, ranks: Iterable[int], *, hang_seconds: float = float("inf")) -> None:
        now = time.monotonic()
        self._heard = dict.fromkeys(ranks, now)
        self._begun: dict[int, int] = {}
        self._hang_seconds = hang_seconds
        self._looked = self._moved = now
        self._said = 0.0
        self.own_step = -1
        """The step that this rank has begun."""

    def due(self) -> bool:
        """Whether it is time to say something; it is taken for said then."""
        now = time.monotonic()
        if now - self._said < BEAT_SECONDS:
            return False
        self._said = now
        return True

    def hear(self, rank: int, step: object = None) -> None:
        """`rank` has said something, perhaps which step it has begun."""
        self._heard[rank] = time.monotonic()
        if isinstance(step, int) and self._begun.get(rank) != step:
            self._begun[rank], self._moved = step, time.monotonic()

    def forget(self, rank: int) -> None:
        """It has left in peace."""
        self._heard.pop(rank, None)
        self._begun.pop(rank, None)

    def silent(self) -> set[int]:
        """Those who have said nothing for SILENT_SECONDS; look every second or so."""
        now = time.monotonic()
        if now - self._looked > ASLEEP_SECONDS:
            self._heard = dict.fromkeys(self._heard, now)
            self._moved = now
        self._looked = now
        return {rank for rank, heard in self._heard.items() if now - heard > SILENT_SECONDS}

    def hanging(self, own: int) -> dict[int, int]:
        """The ranks that are behind, with the step that they have not begun, where none has come on for
        `hang_seconds`; `own` is the number of this rank."""
        if self._begun.get(own) != self.own_step:
            self.hear(own, self.own_step)
        if time.monotonic() - self._moved < self._hang_seconds or not self._begun:
            return {}
        last = max(self._begun.values())
        return {rank: step + 1 for rank, step in self._begun.items() if step < last}
