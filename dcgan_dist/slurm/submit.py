"""The commands `train` and `shards`: check all that can be checked here, record it, submit it."""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from dcgan_dist.config.rules import check, check_data
from dcgan_dist.config.settings import dump, read_config
from dcgan_dist.run_folder.same_run import check_same_run
from dcgan_dist.slurm.arguments import check_gpus, check_numbers, check_time, split_words
from dcgan_dist.slurm.cluster import check_slurm, outside_any_job
from dcgan_dist.slurm.cpus import cpus_per_task
from dcgan_dist.slurm.errors import LaunchError
from dcgan_dist.slurm.jobs import Extra, Job, plan_shards, plan_train, ranks_of
from dcgan_dist.slurm.launches import new_folder, write_record
from dcgan_dist.slurm.local import run_here
from shards.__main__ import check_build


def train(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """check all that can be checked here, record it in the run folder, submit"""
    settings, extra = split_words(rest)
    check_numbers(given)
    check_time(extra.get("time", ""), given.signal_seconds)
    check_gpus(extra)
    cpus = cpus_per_task(given, extra)
    words = [*([given.config] if given.config else []), *settings]
    config = read_config(words, "launch/slurm.py train")
    check(config, ranks=ranks_of(given))
    check_data(config)
    check_same_run(words, config)
    folder = new_folder(given, "train")
    record = {"run": config.run.dir, "ranks": ranks_of(given), "nodes": given.nodes, "config": asdict(config)}
    return launch(given, folder, plan_train(given, folder, extra, cpus=cpus), extra, record, dump(config))


def shards(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """build a dataset by an array of jobs; the words behind -- are those of `python -m shards build`"""
    settings, extra = split_words(rest)
    check_numbers(given)
    if settings:
        raise LaunchError(
            f"{settings[0]}: a dataset has no settings; words of `shards build` stand behind --"
        )
    check_build(given.words)
    folder = new_folder(given, "shards")
    return launch(given, folder, plan_shards(given, folder, extra), extra, {"run": " ".join(given.words)})


def launch(
    given: argparse.Namespace,
    folder: Path,
    jobs: Sequence[Job],
    extra: Extra,
    record: Mapping[str, Any],
    config: str = "",
) -> int:
    """Print the scripts, or record the launch and run its jobs one after the other."""
    scripts = [job.script(folder) for job in jobs]
    if given.cluster == "slurm" and (shutil.which("sbatch") or not given.dry_run):
        check_slurm(extra, scripts)
    if given.dry_run:
        print("\n".join(scripts))
        return 0
    record = write_record(given, folder, record, config)
    ids: list[str] = []
    for job in jobs:
        ids.append(submit(folder, job, ids) if given.cluster == "slurm" else "")
        (folder / "launch.json").write_text(json.dumps({**record, "jobs": ids}, indent=1), encoding="utf-8")
        code = 0 if given.cluster == "slurm" else run_here(given.cluster, folder, job)
        if code:
            return code
    if given.cluster == "slurm":
        print(f"submitted {' and '.join(ids)} as {folder.name}; see: python launch/slurm.py status")
    return 0


def submit(folder: Path, job: Job, ended: Sequence[str]) -> str:
    """Hand a job to Slurm, to start when those of `ended` have; returns its id."""
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(**job.options, dependency=f"afterany:{':'.join(ended)}" if ended else None)
    try:
        with outside_any_job():
            if len(job.tasks) > 1:
                return executor.submit_array(job.tasks)[0].job_id.partition("_")[0]
            return executor.submit(job.tasks[0]).job_id
    except FailedJobError as error:
        raise LaunchError(f"Slurm refuses the job: {' '.join(str(error).split())}") from None
