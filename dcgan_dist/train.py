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
from dcgan_dist.config.settings import check, check_data, read_config, total_steps
from dcgan_dist.ranks import agreement, world
from dcgan_dist.ranks.lost import LostRanksError
from dcgan_dist.ranks.stopping import FINISHED, REFUSED, STOPPED, UNFORESEEN, Signals, ignore_signals
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
    rank = world.launched_rank()
    try:
        with Signals(owns_process=owns_process) as signals:
            world.follow_launcher()
            return run(argv, signals)
    except LostRanksError as error:
        print(f"error: rank {rank}: {error}", file=sys.stderr, flush=True)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in SCARCE:
            print(f"error: rank {rank}: {one_line(error)}", file=sys.stderr, flush=True)
            return REFUSED
        print(f"rank {rank} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
    return UNFORESEEN


def run(argv: Sequence[str], signals: Signals) -> int:
    """A run from its command line on. Errors of the user's making are one line, told by rank 0."""
    rank, joined = world.launched_rank(), False
    try:
        config = read_config(argv, "python -m dcgan_dist.train")
        check(config, ranks=world.launched_ranks())
        index = check_data(config)
        total_steps(config, index)
        check_same_run(argv, config)
        with world.join(
            device=config.train.device,
            timeout_seconds=config.train.timeout_seconds,
            facts=agreement.facts(config, index),
            owns_process=signals.owns_process,
            determinism="error" if config.train.deterministic else "default",
            allow_tf32=config.train.allow_tf32,
        ) as here:
            joined = signals.patient = True
            with hold(config.run.dir, here) as owner:
                stopped = train(config, here, index, signals=signals, owner=owner)
    except (ConfigError, ShardsError, CheckpointError, UnsavedError, DivergedError) as error:
        if world.tells(error, anyone=joined and isinstance(error, ShardsError)):
            told = f"{f'rank {rank}: ' if rank else ''}{error}"
            if isinstance(error, DivergedError):
                told += f"; the last good checkpoint is {checkpoint.newest_name(config.run.dir)}"
            print(f"error: {told}", file=sys.stderr, flush=True)
        return REFUSED
    if rank == 0 and stopped is None:
        print(f"done: samples, checkpoints and logs are in {config.run.dir}")
    elif rank == 0:
        cause = f"by {signals.received.name}" if signals.received else "with another rank"
        print(f"stopped {cause} and saved at step {stopped}; the same command goes on from there")
    return FINISHED if stopped is None else STOPPED


if __name__ == "__main__":
    code = own_process(sys.argv[1:])
    ignore_signals()
    raise SystemExit(code)
