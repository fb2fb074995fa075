"""Where the time of a step goes: a trace of a few steps that Perfetto opens (ui.perfetto.dev).

Kept out: where the trace is written.
"""

import gzip
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

log = logging.getLogger("dcgan_dist")

SKIPPED_STEPS = 5
"""The first steps of a process are not like the others: buffers are made, algorithms are chosen."""


class Trace:
    """Traces `steps` steps after the first few of the process and hands the gzipped JSON to `write`."""

    def __init__(self, steps: int, write: Callable[[bytes], None]) -> None:
        self._steps, self._write = steps, write
        self._done = 0
        self._profile: profile | None = None
        if steps:
            kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            turns = schedule(wait=SKIPPED_STEPS - 1, warmup=1, active=steps, repeat=1)
            self._profile = profile(activities=kinds, schedule=turns, on_trace_ready=self._take)
            self._profile.start()

    def tick(self) -> None:
        """A step is done."""
        self._done += 1
        if self._profile is not None:
            self._profile.step()
            if self._done == SKIPPED_STEPS + self._steps:
                self._stop()

    def close(self) -> None:
        """The last step was done: what was traced until then is written, and what is missing told."""
        if self._profile is not None:
            traced = max(0, self._done - SKIPPED_STEPS)
            self._stop()
            log.warning(
                "run.profile_steps=%d: the run ended after %d steps of this start, of which the first %d are "
                "not traced; %s",
                *(self._steps, self._done, SKIPPED_STEPS),
                f"the trace holds {traced}" if traced else "there is no trace",
            )

    def _stop(self) -> None:
        stopped, self._profile = self._profile, None
        if stopped is not None:
            stopped.stop()

    def _take(self, seen: profile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            seen.export_chrome_trace(str(path))
            self._write(gzip.compress(path.read_bytes()))
