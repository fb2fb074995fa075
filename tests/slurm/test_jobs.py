"""The scripts of a training and of a dataset, as text."""

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="the extra slurm brings submitit")

from tests.slurm.launching import launched
from tests.test_promises import words


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
    done = launched("train", "--dry-run", *asked, *folder, *words(rooms16, tmp_path / "run"), path="/nowhere")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line in (
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=2",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --time=12:00:00",
        "#SBATCH --partition=p",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR2@120",
        "export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0",
    ):
        assert line in lines
    assert (
        next(line for line in lines if line.startswith("srun ")).count("--kill-on-bad-exit=0 --wait=600") == 1
    )
    assert list(tmp_path.iterdir()) == [], "a dry run leaves nothing"
    syntax = subprocess.run(["bash", "-n"], input=done.stdout, capture_output=True, text=True, check=False)
    assert syntax.stderr == ""


def test_a_dataset_is_an_array_and_a_merge(tmp_path: Path) -> None:
    build = ["rooms", str(tmp_path / "set"), "--images", "9"]
    done = launched("shards", "--dry-run", "--parts", "5", "--at-once", "2", "--", *build, path="/nowhere")
    assert done.stdout.count("#!/bin/bash") == 2
    assert "#SBATCH --array=0-4%2" in done.stdout
