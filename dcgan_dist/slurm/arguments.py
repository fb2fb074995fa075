"""The launcher's words: which are settings, which are options of sbatch, and numbers that make no job."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dcgan_dist.slurm.errors import LaunchError
from shards.storage.paths import argument


def split_words(words: Sequence[str]) -> tuple[list[str], dict[str, str | bool]]:
    """What the launcher does not know itself: settings, which have a dot, and options of sbatch."""
    settings: list[str] = []
    extra: dict[str, str | bool] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise LaunchError(
                f"{word} is not known; settings are --group.name VALUE, options of sbatch --long-name"
            )
        if not equals and rest and not rest[0].startswith("--"):
            equals, value = "=", rest.pop(0)
        if "." in name:
            settings.append(f"--{name}{equals}{value}")
        else:
            extra[name] = value if equals else True
    return settings, extra


def check_numbers(given: argparse.Namespace) -> None:
    """Raises LaunchError for a number that makes no job."""
    lowest = dict.fromkeys(("nodes", "ranks_per_node", "cpus_per_task", "parts", "at_once"), 1)
    for name, low in {**lowest, "gpus_per_node": 0}.items():
        value = getattr(given, name, None)
        if value is not None and value < low:
            raise LaunchError(f"--{name.replace('_', '-')}={value} must be at least {low}")


def check_gpus(extra: Mapping[str, str | bool]) -> None:
    """Raises LaunchError where a rank would see GPUs in vain, or share its own with another rank."""
    each = str(extra.get("gpus-per-task", "1")).rpartition(":")[2]
    if each != "1":
        raise LaunchError(
            f"--gpus-per-task={extra['gpus-per-task']}: a rank computes on one GPU; give --gpus-per-task=1 "
            "and as many --ranks-per-node"
        )
    bind = str(extra.get("gpu-bind", ""))
    if bind.rpartition(",")[2] == "closest":
        raise LaunchError(
            f"--gpu-bind={bind} may give two ranks one GPU; give single:1, per_task:1 or map_gpu:LIST, "
            "or leave it out"
        )


def check_time(limit: str | bool, signal_seconds: int) -> None:
    """Raises LaunchError for a time limit that is over before its warning; for the forms see `man sbatch`."""
    days, dash, clock = str(limit).rpartition("-")
    if not re.fullmatch(r"\d*", days) or not re.fullmatch(r"\d+(:\d+){0,2}", clock):
        return  # sbatch will say what is wrong with it
    numbers = [int(number) for number in clock.split(":")]
    if not dash and len(numbers) < 3:
        numbers = [0, *numbers]
    hours, minutes, seconds = (*numbers, 0, 0)[:3]
    if ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds <= signal_seconds:
        raise LaunchError(
            f"--time={limit} is over before its warning, {signal_seconds} s ahead; "
            f"give more time, or fewer --signal-seconds"
        )


def folder_of_logs(text: str) -> str:
    """`--folder` as argparse takes it, without what Slurm would fill in or drop in the names of logs."""
    path = argument(text)
    for sign in "%\\\n":
        if sign in str(Path(path).absolute()):
            raise argparse.ArgumentTypeError(
                f"{text!r}: the names of logs must not hold {sign!r}, a sign of Slurm's own; "
                "give another folder"
            )
    return path
