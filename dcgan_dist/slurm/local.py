"""The same jobs without Slurm: all ranks as processes of this machine, or one in this process."""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import UncompletedJobError

from dcgan_dist.slurm.batch_script import FREE_PORT
from dcgan_dist.slurm.errors import LaunchError
from dcgan_dist.slurm.jobs import Job
from dcgan_dist.slurm.programs import ask
from dcgan_dist.slurm.task import VISIBLE, Task


def run_here(cluster: str, folder: Path, job: Job) -> int:
    """Run a job on this machine, the tasks of an array in turn; returns the first exit code but 0."""
    for task in job.tasks:
        code = run_in_process(task) if cluster == "debug" else run_ranks(folder, job.options, task)
        if code:
            return code
    return 0


def run_in_process(task: Task) -> int:
    """As `python WORDS` would, but where a debugger sees it."""
    sys.argv = list(task.words[1:])
    try:
        runpy.run_module(task.words[1], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def run_ranks(folder: Path, options: Mapping[str, Any], task: Task) -> int:
    """All ranks as processes of this machine; what rank 0 says is shown."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ask(sys.executable, "-c", FREE_PORT).strip()}
    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(
        tasks_per_node=options["nodes"] * options["ntasks_per_node"],
        timeout_min=10**6,
        stderr_to_stdout=True,
    )
    # Ctrl-C is for this process alone, which hands it on as SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Each rank sees the GPUs that the user sees, and takes that of its number.
    job = executor.submit(replace(task, gpus=os.environ.get(VISIBLE)))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.kill(int(job.job_id), signal.SIGTERM))
    words = ["tail", f"--pid={job.job_id}", "-n", "+1", "-F", str(job.paths.stdout)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True):
        while not job.done():
            time.sleep(0.1)
    try:
        return next((code if code > 0 else 128 - code for code in job.results() if code), 0)
    except UncompletedJobError:
        raise LaunchError(f"a task was killed; the logs are in {folder}") from None
