"""Who is gone, told by the lifelines between rank 0 and every other rank.

A collective fails for some ranks first, and others go on waiting for those, or wait for data and notice
nothing; NCCL's tell nobody. So a thread of every rank watches its lines, which carry heartbeats and end with
the process at their other end; it hears what was found, and ends a rank that still waits. Kept out: how ranks
meet, process groups.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping

import torch.distributed as dist

from dcgan_dist.ranks.heartbeat import SILENT_SECONDS, Beats
from dcgan_dist.ranks.lifeline import Lifeline, readable
from shards.printable import printable

GLANCE_SECONDS = 0.5
"""Between two looks at whether all is over."""
GATHER_SECONDS = 0.3
"""Those who go within this are told of together."""
WAIT_SECONDS = 4.0
"""How long to wait for word of who is gone."""
LEAVE_SECONDS = 2.0
"""How long a rank that knows it may take to leave by itself."""
QUOTED = 1000
"""How many letters of another rank's words are told."""

LOST = re.compile(
    r"connection (closed|reset|refused)|broken pipe|timed out|socket|heartbeat|unreachable"
    r"|ncclRemoteError|remote process exited",
    re.IGNORECASE,
)


class LostRanksError(RuntimeError):
    """Other ranks are gone; `str` names them as well as can be told."""

    def __str__(self) -> str:
        return f"{super().__str__()}; the same command goes on from the newest checkpoint"


class Rollcall:
    """One rank's part in it; `close` after the last collective.

    `lines` lead to every other rank, or to rank 0. Where the main thread waits for a rank that is gone, the
    process ends, if it is ours to end (`owns_process`). A rank is taken to hang where no rank has begun
    another step for `hang_seconds`, and it has begun fewer than others.
    """

    def __init__(
        self,
        lines: Mapping[int, Lifeline],
        *,
        rank: int,
        owns_process: bool = True,
        hang_seconds: float = float("inf"),
    ) -> None:
        self._lines, self._rank, self._owns_process = dict(lines), rank, owns_process
        self._beats = Beats(lines, hang_seconds=hang_seconds)
        self._words: dict[int, str] = {}
        self._lost: set[int] = set()
        self._silent: set[int] = set()
        self._behind: dict[int, int] = {}
        self._over, self._leaving = threading.Event(), threading.Event()
        self._known = threading.Event()
        self._found: str | None = None
        self.parted, self.asked = False, False
        self.given_up: int | None = None
        self._asks: Callable[[], bool] = lambda: False
        self._thread = threading.Thread(target=self._watch, name="rollcall", daemon=True)
        self._thread.start()

    @property
    def found(self) -> str | None:
        """Who is gone, once it is known."""
        return self._found

    def watch(self, asks: Callable[[], bool]) -> None:
        """Tell all ranks as soon as `asks` says that this one is asked to stop; they are `asked` then."""
        self._asks = asks

    def give_up(self, done: int) -> None:
        """Tell all ranks that this one will not begin the step after `done`; that is `given_up` then, once
        all have been told."""
        self._spread({"given_up": done})

    def _spread(self, words: dict[str, object]) -> None:
        """To rank 0, and from there to all."""
        if self._rank == 0:
            self._take(words)
        for line in list(self._lines.values()):
            line.send(**words)

    def _take(self, words: Mapping[str, object]) -> None:
        self.asked = self.asked or "asked" in words
        done = words.get("given_up")
        if self.given_up is None and isinstance(done, int):
            self.given_up = done

    def begin(self, step: int) -> None:
        """The main thread has all that it needs for `step`, the words of other ranks apart."""
        self._beats.own_step = step

    def leaving(self, error: BaseException | None = None) -> None:
        """The main thread is on its way out, and may take its time; the others are told at once of an
        `error` that is its own."""
        self._leaving.set()
        if error is not None and not is_loss(error):
            self._tell(error)

    def close(self) -> None:
        """All is done; rank 0 waits a moment for the others, who may still need its store."""
        self._end()
        for line in self._lines.values():
            line.send(bye=True)
        deadline = time.monotonic() + WAIT_SECONDS
        while self._rank == 0 and self._lines and not self.parted and time.monotonic() < deadline:
            self._listen(deadline - time.monotonic())
        self._hang_up()

    def after(self, error: BaseException) -> None:
        """Leave a word on `error`. Raises LostRanksError where it comes of other ranks' going away."""
        self._leaving.set()
        lost = is_loss(error)
        if lost:
            self._known.wait(WAIT_SECONDS)
        self._end()
        self._tell(error)
        self._hang_up()
        if lost:
            raise LostRanksError(self._found or f"lost touch: {first_line(error)}") from error

    def _tell(self, error: BaseException) -> None:
        """Rank 0, or as rank 0 all others, why this one goes."""
        verdict = {"lost": self._found or f"lost rank 0, which said: {first_line(error)}"}
        for line in list(self._lines.values()):
            line.send(**({"failed": first_line(error)} if self._rank else verdict))

    def _end(self) -> None:
        self._over.set()
        self._thread.join()

    def _hang_up(self) -> None:
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    def _watch(self) -> None:
        told = False
        while not self._over.is_set() and not self._lost:
            self._listen(GLANCE_SECONDS)
            self._beat()
            if not told and self._asks():
                told = True
                self._spread({"asked": True})
        deadline = time.monotonic() + GATHER_SECONDS
        while self._lost and not self._over.is_set() and self._found is None and time.monotonic() < deadline:
            self._listen(max(deadline - time.monotonic(), 0))
        if not self._lost:
            return
        self._found = self._found or self._told()
        self._known.set()
        for line in self._lines.values() if self._rank == 0 else ():
            line.send(lost=self._found)
        self._see_off()

    def _beat(self) -> None:
        """Say that this rank is there, and see who is not."""
        if self._beats.due():
            for line in list(self._lines.values()):
                line.send(beat=self._beats.own_step)
        self._silent = self._beats.silent() & self._lines.keys()
        self._behind = self._beats.hanging(0) if self._rank == 0 else {}
        self._lost |= self._silent | self._behind.keys()

    def _see_off(self) -> None:
        """The main thread may be waiting for a rank that is gone, and there is no way to wake it."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < deadline:
            if self._leaving.is_set() or self._over.wait(0.05):
                return
        if self._owns_process:
            told = f"error: rank {self._rank}: {LostRanksError(self._found)}"
            print(told, file=sys.stderr, flush=True)
            os._exit(1)

    def _listen(self, seconds: float) -> None:
        """Hear what is said on the lines within `seconds`."""
        numbers = {id(line): rank for rank, line in self._lines.items()}
        for line in readable(self._lines.values(), seconds):
            rank = numbers[id(line)]
            try:
                for said in line.read():
                    self._beats.hear(rank, said.get("beat"))
                    self._hear(rank, said)
            except EOFError:
                self._drop(rank, lost=True)

    def _hear(self, rank: int, said: Mapping[str, object]) -> None:
        if "lost" in said:
            self._found = printable(str(said["lost"]))[:QUOTED]
            self._lost.add(rank)
        elif "failed" in said:
            self._words[rank] = printable(str(said["failed"]))[:QUOTED]
            self._lost.add(rank)
        elif "bye" in said:
            self._drop(rank, lost=False)
        elif "beat" in said:
            return
        elif self._rank == 0:
            self._spread(dict(said))
        else:
            self._take(said)

    def _drop(self, rank: int, *, lost: bool) -> None:
        line = self._lines.pop(rank, None)
        self._beats.forget(rank)
        if line is not None:
            line.close()
            if lost:
                self._lost.add(rank)

    def _told(self) -> str:
        failed = [
            f"rank {rank}, which said: {self._words[rank]}"
            for rank in sorted(self._lost & self._words.keys())
        ]
        failed += [
            f"rank {rank}, which hangs: it has not begun step {step}, as others have"
            for rank, step in sorted(self._behind.items())
        ]
        gone = self._lost - self._words.keys() - self._behind.keys()
        for ranks, how in (
            (gone - self._silent, "without a word: killed, out of memory, or the node is gone"),
            (
                gone & self._silent,
                f"silent for {SILENT_SECONDS:.0f} s: stopped, or its machine or network hangs",
            ),
        ):
            if ranks and not failed:
                failed = [f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, sorted(ranks)))} {how}"]
        return "lost " + "; ".join(failed)


def is_loss(error: BaseException) -> bool:
    """Whether `error` is what a collective or the store raises when another rank is gone."""
    if isinstance(error, dist.DistError):
        return True
    return type(error) is RuntimeError and LOST.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])
