"""What Slurm itself says: of options and scripts before they are submitted, and of jobs in its queue."""

import difflib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from submitit.helpers import clean_env

from dcgan_dist.slurm.errors import LaunchError
from dcgan_dist.slurm.jobs import MERGE, Extra
from dcgan_dist.slurm.programs import ask, last_line, run

OURS = [
    "array",
    "dependency",
    "error",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "signal",
    "wrap",
]
"""Options of sbatch that the launcher sets itself."""


def need_slurm() -> None:
    """Raises LaunchError on a machine without Slurm."""
    if not shutil.which("sbatch"):
        raise LaunchError("no sbatch on this machine; log in to the cluster, or use --cluster local")


def check_slurm(extra: Extra, scripts: Sequence[str]) -> None:
    """Let Slurm itself look at the scripts. Raises LaunchError."""
    need_slurm()
    helped = run("sbatch", "--help")
    known = sorted(set(re.findall(r"--([a-z][a-z-]+)", helped.stdout)) - set(OURS))
    if not known:
        raise LaunchError(
            f"sbatch does not work here: {last_line(helped)}; is the cluster down? try again later"
        )
    for name in extra:
        if name not in known:
            why = "is set by the launcher" if name in OURS else "is no option of sbatch"
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean --{near[0]}? " if near else ""
            raise LaunchError(f"--{name} {why}; {hint}valid are: {', '.join(known)}")
    for text in scripts:
        with outside_any_job():
            done = run("sbatch", "--test-only", input=text)
        if done.returncode:
            told = done.stderr.strip().splitlines()[0].removeprefix("sbatch: error: ")
            names = ", ".join(sorted(ask("sinfo", "-h", "-o", "%R").split()))
            hint = f"; partitions here are: {names}" if "partition" in told else ""
            asked = re.search(r"^#SBATCH (--cpus-per-task=\d+)$", text, re.M)
            if asked and "configuration" in told:
                hint = f"; it asks for {asked[1]}, try fewer"
            raise LaunchError(f"Slurm refuses the job: {told}{hint}")


@contextmanager
def outside_any_job() -> Iterator[None]:
    """Without the variables of a Slurm job that this may run in, which would bind the new one to it."""
    conf = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env() if "SLURM_JOB_ID" in os.environ else nullcontext():
        os.environ.update(conf)
        yield


def queue() -> list[list[str]]:
    """The jobs of this user: id, job, state, reason, nodes, name. Raises LaunchError."""
    if not shutil.which("squeue"):
        return []
    # The name last, for it may hold anything.
    told = run("squeue", "-ht", "all", "--me", "-o", "%i|%F|%T|%r|%N|%j")
    if told.returncode:
        raise LaunchError(f"squeue does not work here: {last_line(told)}; is the cluster down? try again")
    return [line.split("|", 5) for line in told.stdout.splitlines() if line.count("|") >= 5]


def states(ids: Sequence[str]) -> dict[str, str]:
    """What Slurm says of each job and array task, or its accounting where it is long over."""
    found = {
        name: " ".join(
            filter(None, (MERGE * (kind == MERGE), state, where, f"({reason})" * (reason != "None")))
        )
        for name, job, state, reason, where, kind in queue()
        if job in ids
    }
    gone = [job for job in filter(None, ids) if not any(name.partition("_")[0] == job for name in found)]
    for job in gone:
        found[job] = " ".join(ask("sacct", "-nXP", "-j", job, "-o", "State").split()) or "not in the queue"
    return dict(sorted(found.items()))
