"""The scripts of a training and of a dataset, as text."""

import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="the extra slurm brings submitit")

from tests.slurm.launching import ROOT, launched
from tests.test_promises import words as words_of


def test_the_batch_script_says_all_that_was_asked(rooms16: str, tmp_path: Path) -> None:
    asked = [
        "--nodes",
        "4",
        "--gpus-per-node",
        "2",
        "--time",
        "12:00:00",
        "--partition=p",
        "--interface",
        "ib0",
    ]
    folder = ["--folder", str(tmp_path / "slurm")]
    done = launched(
        "train", "--dry-run", *asked, *folder, *words_of(rooms16, tmp_path / "run"), path="/nowhere"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line in (
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=2",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --cpus-per-task=8",
        '[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
        "#SBATCH --time=12:00:00",
        "#SBATCH --partition=p",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR2@120",
        "export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0",
    ):
        assert line in lines
    assert (
        next(line for line in lines if line.startswith("srun ")).count("--kill-on-bad-exit=0 --wait=120") == 1
    )
    assert list(tmp_path.iterdir()) == [], "a dry run leaves nothing"
    syntax = subprocess.run(["bash", "-n"], input=done.stdout, capture_output=True, text=True, check=False)
    assert syntax.stderr == ""


def test_a_dataset_is_an_array_and_a_merge(tmp_path: Path) -> None:
    build = ["rooms", str(tmp_path / "set"), "--images", "9"]
    done = launched("shards", "--dry-run", "--parts", "5", "--at-once", "2", "--", *build, path="/nowhere")
    assert done.stdout.count("#!/bin/bash") == 2
    assert "#SBATCH --array=0-4%2" in done.stdout


@pytest.mark.parametrize(
    "words",
    [["--gpus-per-task=1"], ["--gpus-per-task=h100:1", "--gpu-bind=per_task:1"], ["--gpu-bind=single:1"]],
)
def test_gpus_may_be_bound_to_ranks(rooms16: str, tmp_path: Path, words: list[str]) -> None:
    asked = ["train", "--dry-run", "--gpus-per-node", "2", *words]
    done = launched(*asked, *words_of(rooms16, tmp_path / "run"), path="/nowhere")
    assert done.returncode == 0, done.stderr
    assert {f"#SBATCH {word}" for word in words} <= set(done.stdout.splitlines())


def test_ranks_without_gpus_are_left_slurms_own_cpus(rooms16: str, tmp_path: Path) -> None:
    asked = ["train", "--dry-run", "--ranks-per-node", "2", *words_of(rooms16, tmp_path / "run")]
    done = launched(*asked, path="/nowhere")
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --cpus-per-task" not in done.stdout


@pytest.mark.parametrize(("nodes", "cpus"), [("64(x3),48", "48"), ("4", "4"), ("100,96(x2)", "96")])
def test_torchrun_has_all_cpus_of_its_node(tmp_path: Path, nodes: str, cpus: str) -> None:
    for name, does in {"srun": 'echo "$@"', "scontrol": "echo n1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "4",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_JOB_NODELIST": "n[1-4]",
    }
    done = subprocess.run(
        ["bash", str(ROOT / "launch" / "torchrun.sbatch"), "FILE"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_CPUS_PER_NODE": nodes, **job},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        *(f"--cpus-per-task={cpus}", "--kill-on-bad-exit=0", "--wait=120"),
        *("torchrun", "--nnodes", "4", "--nproc-per-node", "8", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", "n1:15007", "--rdzv-id", "7.0", "-m", "dcgan_dist.train", "FILE"),
    ]
