"""The commands `cancel` and `requeue`."""

import argparse
from collections.abc import Sequence

from dcgan_dist.slurm.cluster import need_slurm
from dcgan_dist.slurm.errors import LaunchError
from dcgan_dist.slurm.launches import find
from dcgan_dist.slurm.programs import run


def cancel(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """end the jobs of a launch for good"""
    return control(given, "scancel")


def requeue(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """stop the jobs of a launch, saved, and let Slurm start them again"""
    return control(given, "scontrol", "requeue")


def control(given: argparse.Namespace, *command: str) -> int:
    """Hand the jobs of a launch to a command of Slurm. Raises LaunchError with its answer."""
    folder, record = find(given)
    need_slurm()
    if record["cluster"] != "slurm":
        raise LaunchError(f"{folder.name} runs without Slurm; end it with Ctrl-C where it runs")
    for job in record["jobs"]:
        done = run(*command, job)
        if done.returncode:
            told = " ".join(done.stderr.split())
            raise LaunchError(
                f"{job}: {told}; the command of the launch, given again, goes on where it ended"
            )
    print(f"{' '.join(command)}: {folder.name}")
    return 0
