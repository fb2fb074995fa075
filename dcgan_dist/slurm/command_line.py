"""The launcher's command line; all words that it does not know are settings, or options of sbatch."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from dcgan_dist.slurm.arguments import folder_of_logs
from dcgan_dist.slurm.control import cancel, requeue
from dcgan_dist.slurm.errors import LaunchError
from dcgan_dist.slurm.status import logs, status
from dcgan_dist.slurm.submit import shards, train
from shards.command import command
from shards.storage.paths import argument


class Parser(argparse.ArgumentParser):
    """Errors of argparse in the form of all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def make_parser() -> Parser:
    """The launcher's own options; all others are settings, or options of sbatch."""
    parser = Parser(prog="python launch/slurm.py", description="Jobs on a Slurm cluster.", allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    subs = {}
    for does in (train, shards, status, logs, cancel, requeue):
        sub = commands.add_parser(
            does.__name__, help=does.__doc__, description=does.__doc__, allow_abbrev=False
        )
        sub.set_defaults(does=does)
        sub.add_argument(
            "--folder",
            type=folder_of_logs,
            default="runs/slurm",
            help="of scripts and logs, on all nodes (%(default)s)",
        )
        subs[does.__name__] = sub
    for name in ("train", "shards"):
        sub = subs[name]
        sub.epilog = "Other options go to sbatch: --partition P --time 12:00:00 --account A --mem 64G ..."
        places = "local: on this machine; debug: in this process (%(default)s)"
        sub.add_argument("--cluster", choices=("slurm", "local", "debug"), default="slurm", help=places)
        sub.add_argument("--dry-run", action="store_true", help="check, and print the batch scripts")
        whole(sub, "--max-failures", 3, "failures in a row after which a job is still requeued")
    for name in ("status", "logs", "cancel", "requeue"):
        default = "all" if name == "status" else "the newest"
        subs[name].add_argument("launch", nargs="?", metavar="LAUNCH", help=f"its name or job id ({default})")
    subs["train"].add_argument("--config", type=argument, help="YAML file; settings are --group.name VALUE")
    whole(subs["train"], "--nodes", 1, "nodes")
    whole(subs["train"], "--gpus-per-node", 0, "GPUs of each node, one rank for each")
    whole(subs["train"], "--ranks-per-node", None, "ranks of each node where that is not its GPUs")
    whole(
        subs["train"], "--cpus-per-task", None, "CPUs of each rank; with GPUs 8 or what a node has for each"
    )
    subs["train"].add_argument("--interface", help="network interface of NCCL and gloo")
    whole(subs["train"], "--signal-seconds", 120, "warning before the time limit")
    whole(subs["shards"], "--parts", 8, "tasks of the array")
    whole(subs["shards"], "--at-once", None, "tasks at the same time, if not all")
    whole(subs["logs"], "--rank", 0, "the rank, or the task of an array")
    subs["logs"].add_argument("--follow", action="store_true", help="until Ctrl-C")
    return parser


def whole(parser: argparse.ArgumentParser, flag: str, default: int | None, does: str) -> None:
    """An option that is a whole number."""
    parser.add_argument(flag, metavar="N", type=int, default=default, help=f"{does} (%(default)s)")


@command
def main(argv: Sequence[str]) -> int:
    """The command line; wrong use is one line on stderr and exit status 2."""
    cut = argv.index("--") if "--" in argv else len(argv)
    given, rest = make_parser().parse_known_args(argv[:cut])
    given.words = list(argv[cut + 1 :])
    if rest and given.does not in (train, shards):
        raise LaunchError(f"{rest[0]} is not known; see: python launch/slurm.py {given.does.__name__} --help")
    return int(given.does(given, rest))
