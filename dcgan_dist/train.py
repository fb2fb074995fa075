"""Train: `torchrun --nproc-per-node 2 -m dcgan_dist.train configs/demo.yaml`, or without torchrun on one
process; from Python, `dcgan_dist.train("configs/demo.yaml")`.

Starting the same command again resumes from the newest whole checkpoint, on any number of ranks that
divides the batch.
"""

import errno
import logging
import sys
import traceback
from collections.abc import Sequence

from dcgan_dist import library
from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.checkpoint import CheckpointError
from dcgan_dist.checkpoints.writer import UnsavedError
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.ranks import launcher, world
from dcgan_dist.ranks.lost import LostRanksError
from dcgan_dist.ranks.stopping import FINISHED, REFUSED, STOPPED, UNFORESEEN, Signals
from dcgan_dist.training.alarms import DivergedError
from shards import ShardsError
from shards.command import callable_module, command
from shards.storage import store
from shards.storage.paths import given
from shards.storage.retries import one_line

SCARCE = {errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS}
"""What the system has no more of; another try by itself would meet the same."""


@command
def main(argv: Sequence[str]) -> int:
    """The command line, in a process that has other work too, as in a notebook; see `own_process`."""
    return _main(argv, owns_process=False)


@command
def own_process(argv: Sequence[str]) -> int:
    """The command line; its exit codes are those of `stopping`, and the process is ended in time."""
    return _main(argv, owns_process=True)


def _main(argv: Sequence[str], *, owns_process: bool) -> int:
    logging.basicConfig(format="%(levelname)s: %(message)s")
    tell = Tell(launcher.launched_rank())
    try:
        with Signals(owns_process=owns_process) as signals:
            launcher.follow_launcher()
            return run(resumed(argv), signals, tell)
    except Exception as error:
        return tell(error)


def resumed(argv: Sequence[str]) -> list[str]:
    """`--resume RUN` as the settings in that folder, in which it goes on. Raises ConfigError, ShardsError."""
    words = [
        part for word in argv for part in (word.split("=", 1) if word.startswith("--resume=") else [word])
    ]
    if "--resume" not in words:
        return list(argv)
    place = words.index("--resume")
    named, rest = "".join(words[place + 1 : place + 2]), words[:place] + words[place + 2 :]
    if not named or named.startswith("--"):
        raise ConfigError("--resume needs a run folder or URL")
    run_dir = given(named, "--resume")
    config = store.join(run_dir, "config.yaml")
    if not store.exists(config):
        raise ConfigError(f"--resume {named}: no run is there, for it has no config.yaml")
    return [config, "--run.dir", run_dir, *rest]


def run(argv: Sequence[str], signals: Signals, tell: "Tell") -> int:
    """A run from its command line on, and what is said at its end."""
    run_dir, stopped, _ = library.run(argv, signals, tell=tell)
    if tell.rank == 0 and stopped is None:
        print(f"done: samples, checkpoints and logs are in {run_dir}")
    elif tell.rank == 0:
        cause = f"by {signals.received.name}" if signals.received else "with another rank"
        print(f"stopped {cause} and saved at step {stopped}; the same command goes on from there")
    return FINISHED if stopped is None else STOPPED


FORESEEN = (ConfigError, ShardsError, CheckpointError, UnsavedError, DivergedError)
"""Errors of the user's making: one line, told by rank 0, or by each rank whose own it is."""


class Tell:
    """Prints an error, once, and answers with the exit code it leads to."""

    def __init__(self, rank: int) -> None:
        self.rank, self.joined, self.run_dir = rank, False, ""

    def __call__(self, error: BaseException) -> int:
        code, words = self._words(error)
        if words and not getattr(error, "told", False):
            print(words, file=sys.stderr, flush=True)
        error.told = True  # type: ignore[attr-defined]  # kept there, for who keeps an error keeps its frames
        return code

    def at_once(self, error: BaseException) -> None:
        """Before anything is cleaned up, which may take long; but who is lost, which checkpoint is the last,
        and which folder cannot be written will be known only then."""
        if isinstance(error, Exception) and not isinstance(error, DivergedError | LostRanksError | OSError):
            self(error)

    def _words(self, error: BaseException) -> tuple[int, str]:
        if isinstance(error, FORESEEN):
            anyone = self.joined and isinstance(error, ShardsError)
            return REFUSED, self._line(error) if launcher.tells(error, anyone=anyone) else ""
        if isinstance(error, LostRanksError):
            return UNFORESEEN, f"error: rank {self.rank}: {error}"
        if isinstance(error, OSError) and error.errno in SCARCE:
            return REFUSED, f"error: rank {self.rank}: {one_line(error)}"
        return UNFORESEEN, f"rank {self.rank} failed:\n{''.join(traceback.format_exception(error))}"

    def _line(self, error: BaseException) -> str:
        line = f"error: {f'rank {self.rank}: ' if self.rank else ''}{error}"
        if isinstance(error, DivergedError):
            line += f"; the last good checkpoint is {checkpoint.newest_name(self.run_dir)}"
        return line


callable_module(__name__, library.train)

if __name__ == "__main__":
    world.leave(own_process(sys.argv[1:]))
