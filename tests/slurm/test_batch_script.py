"""The batch script is the one that submitit submits; what it decides at the end of a job."""

import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="the extra slurm brings submitit")

from dcgan_dist.slurm.batch_script import END
from dcgan_dist.slurm.jobs import make_job
from dcgan_dist.slurm.submit import submit
from dcgan_dist.slurm.task import Task


@pytest.mark.parametrize(
    ("code", "failures", "state", "decided", "requeues"),
    [
        (0, 0, "RUNNING", "ended", 0),
        (2, 0, "RUNNING", "ended", 0),
        (75, 2, "RUNNING", "requeued", 1),
        (1, 2, "RUNNING", "requeued", 1),
        (137, 3, "RUNNING", "failed 4 times in a row, not requeued", 0),
        (75, 0, "COMPLETING", "left to Slurm: COMPLETING", 0),
    ],
)
def test_the_exit_code_decides_whether_a_job_runs_again(
    tmp_path: Path, code: int, failures: int, state: str, decided: str, requeues: int
) -> None:
    for name, does in {
        "squeue": f"echo {state}",
        "scontrol": f"echo $@ >>{tmp_path}/asked",
        "sleep": ":",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "failures.7").write_text(str(failures))
    text = f"(exit {code})\n" + END.format(folder=tmp_path, max_failures=3)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_RESTART_COUNT": "5",
    }
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr == ""
    line = (tmp_path / "attempts").read_text()
    assert line.startswith(f"7 attempt 5 exit {code} ")
    assert line.endswith(f" {decided}\n")
    asked = (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []
    assert asked == ["requeue 7"] * requeues


def program(folder: Path, name: str, does: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{does}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_text_is_what_submitit_submits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    program(tmp_path, "sbatch", f'cp "$1" {tmp_path}/submitted; echo Submitted batch job 7')
    program(tmp_path, "srun", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    folder = tmp_path / "a folder"
    tasks = [Task(("-m", "shards", str(part))) for part in range(parts)]
    options = {"nodes": 2, "ntasks_per_node": 3, "srun_args": ["--wait=9"], "job_name": "dcgan"}
    job = make_job(tasks, folder, {"account": "a b"}, before=["true"], max_failures=1, **options)
    assert submit(folder, job, []) == "7"
    assert (tmp_path / "submitted").read_text() == job.script(folder)
    pickles = [path.read_bytes() for path in folder.glob("*submitted.pkl")]
    assert len(pickles) == parts
    assert all(b"dcgan_dist.slurm.task" in words for words in pickles), "every node finds a task by name"
