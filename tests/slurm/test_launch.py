"""The launcher without Slurm: its scripts as text, its checks, and runs on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="pip install -e '.[slurm]'")

from launch import slurm
from tests.test_promises import losses, run, words

ROOT = Path(__file__).parent.parent.parent
NO_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def launched(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """The launcher in a process that cannot import torch."""
    return subprocess.run(
        [sys.executable, "-c", NO_TORCH, "launch/slurm.py", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path or os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def told(*arguments: str) -> str:
    """The one line of a wrong use, on a machine without Slurm."""
    done = launched(*arguments, path="/nowhere")
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines), done.stdout) == (2, 1, ""), done.stderr
    return lines[0]


def test_settings_have_a_dot_and_all_else_is_slurms() -> None:
    settings, extra = slurm.split_words(
        ["--optim.lr", "1e-4", "--account=a", "--exclusive", "--train.steps=3", "--mem", "64G"]
    )
    assert settings == ["--optim.lr=1e-4", "--train.steps=3"]
    assert extra == {"account": "a", "exclusive": True, "mem": "64G"}


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
    text = f"(exit {code})\n" + slurm.END.format(folder=tmp_path, max_failures=3)
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


def test_the_first_rank_to_fail_is_shown(tmp_path: Path) -> None:
    (tmp_path / "7_batch.out").write_text(
        "attempt 0 on n[1-4] 2000\nsrun: error: n4: task 3: Killed\n"
        "attempt 1 on n[1-4] 2001\nsrun: error: n1: tasks 0-1: Exited with exit code 75\n"
        "srun: error: n3: task 2: Exited with exit code 1\nsrun: error: n2: task 1: Exited with exit code 1\n"
    )
    (tmp_path / "7_2_log.out").write_text("attempt 1: task 2 of 4 on n3\nerror: rank 2: the disk is full\n")
    (tmp_path / "7_1_log.out").write_text("attempt 1: task 1 of 4 on n2\nerror: rank 1: lost rank 2\n")
    expected = "rank 2 on n3: Exited with exit code 1: error: rank 2: the disk is full"
    assert slurm.first_error(tmp_path, "7") == expected
    assert slurm.first_error(tmp_path, "8") is None


def test_a_wrong_use_is_one_line(rooms16: str, tmp_path: Path) -> None:
    train = ["train", "--folder", str(tmp_path / "slurm"), *words(rooms16, tmp_path / "run")]
    assert "no sbatch on this machine; log in to the cluster, or use --cluster local" in told(*train)
    assert "does not divide over 3 ranks" in told(*train, "--nodes", "3")
    assert "nowhere does not exist" in told(*train, "--data.url", str(tmp_path / "nowhere"))
    assert "--time=1 is over before its warning, 120 s ahead" in told(*train, "--time", "1")
    assert "-p is not known; settings are --group.name" in told(*train, "-p", "main")
    assert "invalid choice: 'moon'" in told(*train, "--cluster", "moon")
    assert "cannot be read as a config file" in told(*train, "--config", "nothing.yaml")
    assert "--optim.lr=1: a dataset has no settings" in told("shards", "--optim.lr=1", "--", "rooms", "x")
    assert "the following arguments are required: SOURCE" in told("shards")
    assert "--part and --merge are the launcher's" in told("shards", "--", "rooms", "x", "--part", "1/2")
    for command in ("status", "logs", "cancel", "requeue"):
        assert "7: nothing of it in --folder" in told(command, "--folder", str(tmp_path), "7")
    assert "--fast is not known; see: python launch/slurm.py status --help" in told("status", "--fast")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("2", 120), ("1:30", 90), ("0:2:5", 125), ("1-0", 86400), ("0-0:1", 60), ("1-1:1:1", 90061)],
)
def test_a_time_limit_is_longer_than_its_warning(limit: str, seconds: int) -> None:
    slurm.check_time(limit, seconds - 1)
    with pytest.raises(slurm.LaunchError, match="is over before its warning"):
        slurm.check_time(limit, seconds)


def test_folders_that_cannot_be_made_are_one_line(rooms16: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    local = ["train", "--cluster", "local"]
    data = words(rooms16, tmp_path / "run")
    assert "give one that all nodes share" in told(*local, "--folder", str(tmp_path / "file" / "x"), *data)
    data = words(rooms16, tmp_path / "file" / "run")
    assert str(tmp_path / "file") in told(*local, "--folder", str(tmp_path / "slurm"), *data)


@pytest.mark.slow
def test_the_same_job_runs_on_this_machine(rooms16: str, tmp_path: Path) -> None:
    precise = "--train.precision=float64"
    given = [sys.executable, "launch/slurm.py", "train", "--folder", str(tmp_path / "slurm")]
    for cluster in ("local", "debug"):
        out = words(rooms16, tmp_path / cluster, precise)
        done = subprocess.run(
            [*given, "--cluster", cluster, "--nodes", "2", *out],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "step 20/20" in done.stdout
    run(1, words(rooms16, tmp_path / "alone", precise))
    for line, other, wanted in zip(
        *(losses(tmp_path / name) for name in ("local", "debug", "alone")), strict=True
    ):
        assert line == pytest.approx(wanted, rel=1e-6)
        assert other == pytest.approx(wanted, rel=1e-6)
