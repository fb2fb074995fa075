"""How many CPUs each rank is given. Slurm's default is one, and a rank of a GPU that launches, decodes, reads
ahead and writes on one core waits for itself. Ranks without GPUs keep Slurm's default.
"""

import argparse
import os

from dcgan_dist.slurm.errors import LaunchError
from dcgan_dist.slurm.jobs import Extra, ranks_of
from dcgan_dist.slurm.programs import ask

WANTED = 8
"""CPUs of a rank with a GPU, where its node has as many for each."""
OF_GPUS = {"gpus", "gpus-per-task", "gpus-per-socket", "gres", "tres-per-task"}
"""Options of sbatch that may ask for GPUs."""


def cpus_per_task(given: argparse.Namespace, extra: Extra) -> int | None:
    """CPUs to ask for, for each rank; None leaves it to Slurm. Raises LaunchError where they fit no node."""
    asked: int | None = given.cpus_per_task
    others = [f"{name}={extra[name]}" for name in OF_GPUS & extra.keys()]
    gpus = given.gpus_per_node > 0 or any("gpu" in words for words in others)
    if asked is None and ("cpus-per-gpu" in extra or not gpus):
        return None
    ranks = ranks_of(given) // given.nodes
    nodes = cpus_of_nodes(extra, gpus=gpus) if given.cluster == "slurm" else []
    if asked is None:
        fitting: list[int] = [cpus // ranks for cpus in nodes]
        return max(1, min([WANTED, *fitting]))
    if nodes and asked * ranks > max(nodes):
        fits = max(nodes) // ranks
        way_out = f"give {fits} at most" if fits else "give it fewer ranks"
        raise LaunchError(
            f"--cpus-per-task={asked}: the {ranks} ranks of a node need {asked * ranks} CPUs, and no node of "
            f"the partition has more than {max(nodes)}; {way_out}"
        )
    return asked


def cpus_of_nodes(extra: Extra, *, gpus: bool) -> list[int]:
    """CPUs of the partition's nodes, each number once; with `gpus`, of the nodes that have some.

    Empty where Slurm cannot be asked.
    """
    partition = str(extra.get("partition", "")) or os.environ.get("SBATCH_PARTITION", "")
    told = ask("sinfo", "-h", "-e", *(["-p", partition] if partition else []), "-o", "%P|%c|%G")
    rows = [line.split("|") for line in told.splitlines() if line.count("|") == 2]
    # Without a partition's name the job goes to the default one, which has a star.
    rows = [row for row in rows if partition or row[0].endswith("*")]
    rows = [row for row in rows if gpus and "gpu" in row[2]] or rows
    return sorted({int(row[1]) for row in rows if row[1].isdecimal()})
