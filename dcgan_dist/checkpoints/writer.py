"""Files in the background, in order: training pays for the copy only, a failed checkpoint is tried again.

Sample grids come before the checkpoints that are taken after them, so that a run that goes on from one has
all that came before. A snapshot that is overtaken by a newer one before it could be written is dropped. Kept
out: what a checkpoint is made of, which is `checkpoint`'s.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from shards import ShardsError
from shards.errors import ToldError

PAUSES_SECONDS = (2.0, 5.0, 15.0)
"""Before the second try of a write, and so on; after the last, the run is stopped. Remote storage has been
asked for a minute by then already, each time: see `shards.storage.store`."""

DRAWINGS = 8
"""How many may wait; then training waits for storage."""

log = logging.getLogger("dcgan_dist")


class UnsavedError(ToldError):
    """Checkpoints can no longer be written."""


@dataclass(frozen=True)
class Job:
    step: int
    write: Callable[[], None]


class Writer:
    """Writes the newest snapshot given to `save`; `check` tells how it went."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: Job | None = None  # not begun
        self._drawings: deque[Callable[[], None]] = deque()  # begun ones are gone
        self._closing = False
        self._untold: list[str] = []
        self._fatal: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def save(self, step: int, write: Callable[[], None]) -> None:
        """Have `write` called soon. Returns at once."""
        with self._changed:
            if self._waiting is not None:
                self._untold.append(
                    f"step {self._waiting.step} was not saved: storage is slower than run.checkpoint_steps"
                )
            self._waiting = Job(step, write)
            self._changed.notify_all()

    def draw(self, work: Callable[[], None]) -> None:
        """Have `work` called soon, before any snapshot that is given later; `check` raises its error."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._drawings) < DRAWINGS or self._fatal is not None)
            self._drawings.append(work)
            self._changed.notify_all()

    def check(self) -> None:
        """Warn of writes that failed since the last call. Raises UnsavedError when they keep failing."""
        with self._changed:
            untold, self._untold = self._untold, []
            fatal = self._fatal
        for line in untold:
            log.warning("%s", line)
        if fatal is not None:
            raise fatal

    def close(self) -> None:
        """Wait until all is written; pauses are over. Raises UnsavedError."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self.check()

    def _work(self) -> None:
        try:
            while (job := self._next()) is not None:
                self._write(job)
            self._draw()
        except BaseException as error:
            with self._changed:
                self._fatal = error
                self._changed.notify_all()

    def _draw(self) -> None:
        while True:
            with self._changed:
                if not self._drawings:
                    return
                work = self._drawings.popleft()
                self._changed.notify_all()
            work()

    def _next(self) -> Job | None:
        """The next snapshot, when all is drawn that was asked for until now; None at the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._drawings or self._closing)
                if not self._drawings:
                    job, self._waiting = self._waiting, None
                    return job
            self._draw()

    def _write(self, job: Job) -> None:
        """Write `job`, or a newer one in its place after a failure."""
        for pause in (*PAUSES_SECONDS, None):
            self._draw()
            try:
                job.write()
                return
            except ShardsError as error:
                if pause is None:
                    tries = len(PAUSES_SECONDS) + 1
                    raise UnsavedError(
                        f"step {job.step} could not be saved in {tries} tries: {error}; older checkpoints "
                        "are as they were; make room or give access, then start the same command again"
                    ) from error
                told = f"step {job.step} is not saved yet: {error}"
            with self._changed:
                self._untold.append(told)
                self._changed.wait_for(lambda: self._waiting is not None or self._closing, timeout=pause)
                if self._waiting is not None:
                    job, self._waiting = self._waiting, None
