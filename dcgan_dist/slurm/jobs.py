"""The jobs of a training and of a dataset, as submitit is to submit them."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcgan_dist.slurm import batch_script
from dcgan_dist.slurm.batch_script import BEGIN, END, MEET
from dcgan_dist.slurm.task import TRAINER, Task

MERGE = "merge"
WAIT_SECONDS = 120
"""How long ranks may outlive the first that ends. Those that lost one leave within 15 s by themselves, but
rank 0 may be writing a checkpoint, and only srun misses a rank that ended before they had met."""
Extra = Mapping[str, str | bool]
"""Options of sbatch as the user gave them, without the dashes."""


@dataclass(frozen=True)
class Job:
    """One Slurm job, an array where it has several `tasks`; `options` are submitit's."""

    tasks: tuple[Task, ...]
    options: Mapping[str, Any]

    def script(self, folder: Path) -> str:
        """The batch script, as submitit will submit it."""
        return batch_script.text(folder, len(self.tasks) if len(self.tasks) > 1 else None, self.options)


def make_job(
    tasks: Sequence[Task],
    folder: Path,
    extra: Extra,
    *,
    before: Sequence[str],
    max_failures: int,
    **options: Any,
) -> Job:
    """A job whose script requeues by exit code; what the user gave wins over every default."""
    number = "%A_%a" if len(tasks) > 1 else "%j"
    own = {"requeue": True, "output": str(folder / f"{number}_batch.out")}
    common = {
        "time": None,
        "wckey": None,
        "stderr_to_stdout": True,
        "setup": [*before, *BEGIN],
        "teardown": END.format(folder=shlex.quote(str(folder)), max_failures=max_failures).splitlines(),
        "additional_parameters": own | {name.replace("-", "_"): value for name, value in extra.items()},
    }
    return Job(tuple(tasks), common | options)


def plan_train(given: argparse.Namespace, folder: Path, extra: Extra, *, cpus: int | None) -> list[Job]:
    """The one job of a training run, with `cpus` for each rank."""
    name = shlex.quote(given.interface or "")
    network = [f"export NCCL_SOCKET_IFNAME={name} GLOO_SOCKET_IFNAME={name}"] if given.interface else []
    job = make_job(
        [Task(("-m", TRAINER, str(folder / "config.yaml")))],
        folder,
        extra,
        before=[*MEET, *network],
        max_failures=given.max_failures,
        job_name="dcgan",
        nodes=given.nodes,
        ntasks_per_node=ranks_of(given) // given.nodes,
        gpus_per_node=given.gpus_per_node or None,
        cpus_per_task=cpus,
        signal_delay_s=given.signal_seconds,
        srun_args=["--kill-on-bad-exit=0", f"--wait={WAIT_SECONDS}", "--open-mode=append"],
    )
    return [job]


def plan_shards(given: argparse.Namespace, folder: Path, extra: Extra) -> list[Job]:
    """An array that builds the parts, and a job that merges them when all have ended, however they did."""
    build = ("-m", "shards", "build", *given.words)
    parts = [Task((*build, "--part", f"{part}/{given.parts}")) for part in range(1, given.parts + 1)]
    shared = {"before": (), "max_failures": given.max_failures, "nodes": 1, "ntasks_per_node": 1} | {
        "srun_args": ["--open-mode=append"]
    }
    at_once = given.at_once or given.parts
    return [
        make_job(parts, folder, extra, job_name="shards", array_parallelism=at_once, **shared),
        make_job([Task((*build, "--merge", str(given.parts)))], folder, extra, job_name=MERGE, **shared),
    ]


def ranks_of(given: argparse.Namespace) -> int:
    """One rank per GPU, or as many per node as asked; a debugger sees a single one."""
    return 1 if given.cluster == "debug" else given.nodes * (given.ranks_per_node or given.gpus_per_node or 1)
