"""Train: `torchrun --nproc-per-node 2 -m dcgan_dist.train configs/demo.yaml`, or without torchrun on one
process.

Starting the same command again resumes from the newest whole checkpoint, on any number of ranks that
divides the batch.
"""

import errno
import logging
import sys
import traceback
from collections.abc import Sequence

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.checkpoint import CheckpointError
from dcgan_dist.checkpoints.writer import UnsavedError
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.rules import check, check_data, total_steps
from dcgan_dist.config.settings import read_config
from dcgan_dist.ranks import agreement, launcher, world
from dcgan_dist.ranks.lost import LostRanksError
from dcgan_dist.ranks.stopping import FINISHED, REFUSED, STOPPED, UNFORESEEN, Signals
from dcgan_dist.run_folder.owner import hold
from dcgan_dist.run_folder.same_run import check_same_run
from dcgan_dist.training.alarms import DivergedError
from dcgan_dist.training.trainer import train
from shards import ShardsError
from shards.command import command
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
            return run(argv, signals, tell)
    except Exception as error:
        return tell(error)


def run(argv: Sequence[str], signals: Signals, tell: "Tell") -> int:
    """A run from its command line on."""
    config = read_config(argv, "python -m dcgan_dist.train")
    check(config, ranks=launcher.launched_ranks())
    index = check_data(config)
    total_steps(config, index)
    check_same_run(argv, config)
    tell.run_dir = config.run.dir
    with world.join(
        device=config.train.device,
        timeout_seconds=config.train.timeout_seconds,
        facts=agreement.facts(config, index),
        owns_process=signals.owns_process,
        determinism="error" if config.train.deterministic else "default",
        allow_tf32=config.train.allow_tf32,
        tell=tell.at_once,
    ) as here:
        tell.joined = signals.patient = True
        with hold(config.run.dir, here) as owner:
            stopped = train(config, here, index, signals=signals, owner=owner)
    if tell.rank == 0 and stopped is None:
        print(f"done: samples, checkpoints and logs are in {config.run.dir}")
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


if __name__ == "__main__":
    world.leave(own_process(sys.argv[1:]))
