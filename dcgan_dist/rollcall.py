"""Who is missing when a collective fails, asked through the store that the ranks met at.

A collective fails for some ranks first, and others go on waiting for those; so a thread of every rank answers
when the roll is called, hears what was found, and ends a rank that still waits. Kept out: process groups.
"""

import contextlib
import os
import re
import socket
import sys
import threading
import time

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

ANSWER_SECONDS = 0.5
"""Between two looks into the store."""
WAIT_SECONDS = 4.0
"""How long a rank has to answer, and how long to leave by itself."""

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
    """One rank's part in it; `close` after the last collective."""

    CALLED, FOUND = "dcgan_dist/roll", "dcgan_dist/found"

    def __init__(self, store: Store, host: tuple[str, int], *, rank: int, ranks: int) -> None:
        self._store, self._host, self._rank, self._ranks = store, host, rank, ranks
        self._over = threading.Event()
        self._found: str | None = None
        self._thread = threading.Thread(target=self._answer, name="rollcall", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._over.set()
        self._thread.join()

    def after(self, error: Exception) -> None:
        """Leave a word on `error`. Raises LostRanksError where it comes of other ranks' going away."""
        self.close()
        if is_loss(error) and self._found:
            raise LostRanksError(self._found) from error
        if not _listens(self._host):  # asked in vain, the store prints its own stack
            if is_loss(error):
                raise LostRanksError(f"lost rank 0, or torchrun on {self._host[0]}") from error
            return
        with contextlib.suppress(dist.DistError):
            if is_loss(error):
                self._call(error)
            else:
                self._store.set(self._key(self._rank), first_line(error))
            if self._rank == 0:  # it may be the store's host, and others have yet to hear
                time.sleep(2 * ANSWER_SECONDS)
        if is_loss(error):
            raise LostRanksError(self._found or f"lost touch: {first_line(error)}") from error

    def _key(self, rank: int) -> str:
        return f"dcgan_dist/word/{rank}"

    def _answer(self) -> None:
        with contextlib.suppress(dist.DistError):
            while not self._over.wait(ANSWER_SECONDS):
                if self._store.check([self.CALLED]):
                    self._store.compare_set(self._key(self._rank), "", "here")
                if self._store.check([self.FOUND]):
                    self._found = self._store.get(self.FOUND).decode()
                    break
        if self._found and not self._over.wait(WAIT_SECONDS):
            # The main thread waits for a rank that is gone, and there is no way to wake it.
            told = f"error: rank {self._rank}: {LostRanksError(self._found)}"
            print(told, file=sys.stderr, flush=True)
            os._exit(1)

    def _call(self, error: Exception) -> None:
        """Call the roll, unless another has; find and tell who is missing."""
        self._store.compare_set(self._key(self._rank), "", "here")
        self._store.set(self.CALLED, "now")
        words: dict[int, str] = {}
        deadline = time.monotonic() + WAIT_SECONDS
        while len(words) < self._ranks and time.monotonic() < deadline:
            for rank in set(range(self._ranks)) - words.keys():
                if self._store.check([self._key(rank)]):
                    words[rank] = self._store.get(self._key(rank)).decode()
            time.sleep(0.05)
        self._store.compare_set(self.FOUND, "", self._told(words, error))
        self._found = self._store.get(self.FOUND).decode()

    def _told(self, words: dict[int, str], error: Exception) -> str:
        failed = [
            f"rank {rank}, which said: {word}" for rank, word in sorted(words.items()) if word != "here"
        ]
        silent = sorted(set(range(self._ranks)) - words.keys())
        if silent and not failed:
            names = f"rank{'s' * (len(silent) > 1)} {', '.join(map(str, silent))}"
            failed = [f"{names} without a word: killed, out of memory, or the node is gone"]
        return "lost " + "; ".join(failed or [f"touch with the others: {first_line(error)}"])


def is_loss(error: BaseException) -> bool:
    """Whether `error` is what a collective or the store raises when another rank is gone."""
    if isinstance(error, dist.DistError):
        return True
    return type(error) is RuntimeError and LOST.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _listens(host: tuple[str, int]) -> bool:
    try:
        socket.create_connection(host, timeout=WAIT_SECONDS).close()
    except OSError:
        return False
    return True
