"""The commands `status` and `logs`: what became of a launch, and what its ranks have said."""

import argparse
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dcgan_dist.slurm.cluster import states
from dcgan_dist.slurm.errors import LaunchError
from dcgan_dist.slurm.launches import find

RANK = re.compile(r"_(\d+)(?:_0)?_(?:log|batch)\.out$")
"""In the name of a log, the rank or the task of an array."""


def status(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """show launches: their jobs, how each attempt ended, the first rank's error"""
    names = [path.parent.name for path in Path(given.folder).glob("*/launch.json")]
    if not names and given.launch is None:
        print(f"no launches in {given.folder} yet; to begin one: python launch/slurm.py train --help")
    for name in sorted(names) if given.launch is None else [given.launch]:
        given.launch = name
        folder, record = find(given)
        print(f"{folder.name}: {record['run']}")
        path = folder / "attempts"
        ends = path.read_text().splitlines() if path.exists() else []
        for job, state in states(record["jobs"]).items():
            last = next((end for end in reversed(ends) if end.split()[0] == job), "")
            print(
                "  "
                + "; ".join(
                    filter(None, (f"{job} {state}", last.partition(" ")[2], first_error(folder, job)))
                )
            )
    return 0


def first_error(folder: Path, job: str) -> str | None:
    """What the first task to fail in the last attempt said; srun tells the order."""
    batch = last_attempt(folder / f"{job}_batch.out")
    failed = re.findall(r"^srun: error: (\S+): tasks? (\d+)\S*: (.+)$", batch, re.M)
    told = [(rank, node, end, last_attempt(folder / f"{job}_{rank}_log.out")) for node, rank, end in failed]
    told = [row for row in told if not row[2].endswith("exit code 75")]
    if not told:
        return None
    # A rank that was killed says nothing; of a wrong setting, which all ranks meet, rank 0 alone tells.
    telling = (row for row in told if "error" in row[3].lower() or not row[2].startswith("Exited"))
    rank, node, end, text = next(telling, told[0])
    lines = text.strip().splitlines()
    line = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "no word")
    return f"rank {rank} on {node}: {end}: {line}"


def last_attempt(path: Path) -> str:
    """The log since the last attempt began."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return text[text.rfind("\nattempt ") + 1 :]


def logs(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """show what the batch script and one rank have said"""
    folder, record = find(given)
    job, rank = record["jobs"][0] or "*", given.rank
    names = (
        f"{job}_batch.out",
        f"{job}_{rank}_log.out",
        f"{job}_{rank}_batch.out",
        f"{job}_{rank}_0_log.out",
    )
    paths = [str(path) for name in names for path in sorted(folder.glob(name))]
    of_rank = [path for path in paths if not path.endswith(f"{job}_batch.out")]
    ranks = sorted(
        {int(found[1]) for path in folder.glob(f"{job}_*.out") if (found := RANK.search(path.name))}
    )
    if ranks and not of_rank:
        raise LaunchError(f"{folder.name} has no log of rank {rank}; there are {', '.join(map(str, ranks))}")
    if not paths:
        raise LaunchError(f"{folder.name} has no log of rank {rank} yet; see: python launch/slurm.py status")
    words = ["tail", "-n", "40", *(["-F"] if given.follow else []), *paths]
    return subprocess.run(words, check=False).returncode
