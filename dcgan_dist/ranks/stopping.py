"""Stopping well: a signal only sets a flag, and all ranks stop after one and the same step.

They agree through the store that they met at, without a collective: a rank that has a signal and has done `a`
steps writes a + 2 there, once for all ranks, and every rank looks there after each step. Step a needs that
rank, which begins it after writing; a GPU is never more than a step behind its rank (`Pace`); so every rank
that has done a + 2 steps has seen the word, and none has done more. Where steps are short (GPUs), ranks look
after every `GPU_LOOKS_STEPS`th step alone, and what is written is the next of those. Kept out: saving.
"""

import os
import re
import signal
import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any, Self

import torch
from torch.distributed import Store  # type: ignore[attr-defined]

from dcgan_dist.ranks import launcher
from dcgan_dist.ranks.lost import Rollcall
from dcgan_dist.ranks.machines import few_cores

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

FINISHED, UNFORESEEN, REFUSED, STOPPED = 0, 1, 2, 75
"""Exit codes: done; an unforeseen error or a lost rank; a wrong setting, dataset, checkpoint or storage, told
in one line; stopped by a signal and saved, to be started again (EX_TEMPFAIL of sysexits.h)."""

AHEAD_STEPS = 2
GPU_LOOKS_STEPS = 8
"""A look costs about 0.1 ms of the thread that launches, and all ranks ask one server."""
PATIENCE_SECONDS = 5.0
"""A rank that is to stop and waits longer than this for its data gives its step up."""
SAME_SECONDS = 1.0
"""Signals of one moment count as one: Slurm signals torchrun and its ranks, and torchrun passes it on."""


class Signals:
    """The stop signals of this process inside the block: `received` is the first, a second leaves at once.

    Before `patient` is set nothing is worth saving, and the first leaves at once too. Another thread acts on
    what arrives, for the main one may be waiting for ranks that are gone. Where the process has other work
    (`owns_process` false), a notebook for one, leaving is what it did with the signal before; and in a thread
    that is not the main one signals are somebody else's.
    """

    def __init__(self, *, owns_process: bool = True) -> None:
        self.owns_process = owns_process
        self.received: signal.Signals | None = None
        self.patient = False
        self._first_time = 0.0

    def __enter__(self) -> Self:
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return self
        if not self.owns_process:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
            return self
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _ignore) for number in SIGNALS}
        # A launcher may have held them back until there is somebody to take them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if not self._before:
            return
        self._restore()
        if not self.owns_process:
            return
        signal.set_wakeup_fd(self._wakeup_before)
        os.write(self._writing, b"\0")
        self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        """A handler that leaves the process to what it was."""
        if self.received is None and self.patient:
            self.received, self._first_time = signal.Signals(number), time.monotonic()
        elif self.received is None or time.monotonic() - self._first_time > SAME_SECONDS:
            self._restore()
            signal.raise_signal(number)

    def _watch(self) -> None:
        while number := os.read(self._reading, 1)[0]:
            if number in SIGNALS:
                self._take(signal.Signals(number))

    def _take(self, number: signal.Signals) -> None:
        if self.received is None:
            self.received, self._first_time = number, time.monotonic()
            if not self.patient:
                _leave(STOPPED, f"stopped by {number.name} before training began")
        elif time.monotonic() - self._first_time > SAME_SECONDS:
            _leave(128 + number, f"a second signal, {number.name}: leaving at once, nothing more is saved")


def _ignore(number: int, frame: object) -> None:
    """The wake-up descriptor has told the watching thread."""


def _leave(code: int, why: str) -> None:
    print(why, file=sys.stderr, flush=True)
    os._exit(code)


def ignore_signals() -> None:
    """For a process that is done: an interpreter on its way out would die of a signal that comes late."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Pace:
    """Lets a GPU fall behind its rank by no more than the step just begun."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # A wait that turns round and round would take the core that decodes the next batch.
        self._sleeps = few_cores(device, sharing=launcher.sharing_cores()) is not None
        self._under_way: deque[torch.Event] = deque()

    def wait(self) -> None:
        """Call after each step."""
        if self._device.type == "cpu":
            return
        event = torch.Event(self._device, blocking=self._sleeps)
        event.record()
        self._under_way.append(event)
        if len(self._under_way) > 1:
            self._under_way.popleft().synchronize()


class Stop:
    """Whether all ranks stop now; `after` is asked by every rank after every step."""

    KEY = "dcgan_dist/stop_step"

    def __init__(
        self,
        signals: Signals,
        store: Store | None,
        device: torch.device,
        rollcall: Rollcall | None = None,
    ) -> None:
        self._signals, self._store, self._pace = signals, store, Pace(device)
        self._rollcall = rollcall
        self._asked_time: float | None = None
        self._gave_up = False
        if rollcall is not None:
            rollcall.watch(lambda: signals.received is not None)
        self._every = 1 if device.type == "cpu" else GPU_LOOKS_STEPS
        self._step: int | None = None

    def after(self, done: int) -> bool:
        """Whether the run stops now that `done` steps are done: the same answer on all ranks."""
        if self._store is None:
            return self._signals.received is not None
        self._pace.wait()
        if self._step is None and done % self._every == 0:
            self._step = self._agreed(done)
        if self._step is None and self._signals.received is not None:
            self._ask(done)
        return self._step is not None and done >= self._step

    def in_vain(self, done: int, waited_seconds: float = 0.0) -> bool:
        """Whether all ranks give up the step after `done`: a rank waits for its data, and is to stop.

        No rank can have changed a weight in that step, for each change takes words of every rank.
        """
        if self._asked_time is None and self._is_asked():
            self._asked_time = time.monotonic()
        patient = self._asked_time is None or time.monotonic() - self._asked_time < PATIENCE_SECONDS
        gives_up = not patient and waited_seconds > PATIENCE_SECONDS
        if self._rollcall is None:
            return gives_up
        if gives_up and not self._gave_up:
            self._rollcall.give_up(done)
            self._gave_up = True
        return self._rollcall.given_up == done

    def _is_asked(self) -> bool:
        asked = self._rollcall is not None and self._rollcall.asked
        return asked or self._signals.received is not None

    def _agreed(self, done: int) -> int | None:
        """The step that a rank has written; None while there is none, and where it can be no rank's word."""
        said = self._said()
        return int(said) if self._is_near(said, done) else None

    def _is_near(self, said: str, done: int) -> bool:
        # Whoever wrote it had done one step more than this rank at the most, and two less at the least.
        last = done + AHEAD_STEPS + self._every
        return bool(re.fullmatch(r"[0-9]{1,18}", said)) and done <= int(said) <= last

    def _said(self) -> str:
        assert self._store is not None
        return self._store.get(self.KEY).decode(errors="replace") if self._store.check([self.KEY]) else ""

    def _ask(self, done: int) -> None:
        """Write the step to stop after, once for all ranks, over what no rank has written."""
        assert self._store is not None
        said = self._said()
        if not self._is_near(said, done):
            first = done + AHEAD_STEPS
            self._store.compare_set(self.KEY, said, str(first + -first % self._every))
        self._step = self._agreed(done)
