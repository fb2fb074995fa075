"""Whose error is shown."""

import json
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="the extra slurm brings submitit")

from dcgan_dist.slurm.status import first_error
from tests.slurm.launching import launched, told


def test_the_first_rank_to_fail_is_shown(tmp_path: Path) -> None:
    (tmp_path / "7_batch.out").write_text(
        "attempt 0 on n[1-4] 2000\nsrun: error: n4: task 3: Killed\n"
        "attempt 1 on n[1-4] 2001\nsrun: error: n1: tasks 0-1: Exited with exit code 75\n"
        "srun: error: n3: task 2: Exited with exit code 1\nsrun: error: n2: task 1: Exited with exit code 1\n"
    )
    (tmp_path / "7_2_log.out").write_text("attempt 1: task 2 of 4 on n3\nerror: rank 2: the disk is full\n")
    (tmp_path / "7_1_log.out").write_text("attempt 1: task 1 of 4 on n2\nerror: rank 1: lost rank 2\n")
    expected = "rank 2 on n3: Exited with exit code 1: error: rank 2: the disk is full"
    assert first_error(tmp_path, "7") == expected
    assert first_error(tmp_path, "8") is None


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    """No launches yet, a rank that a launch never had, and a task of an array that it never had."""
    folder = tmp_path / "slurm"
    done = launched("status", "--folder", str(folder))
    assert (done.returncode, done.stdout) == (
        0,
        f"no launches in {folder} yet; to begin one: python launch/slurm.py train --help\n",
    )
    for name, logs in (
        ("train-1", ["7_batch", "7_0_log", "7_1_log"]),
        ("shards-1", ["7_0_0_log", "7_1_batch"]),
    ):
        place = folder / name
        place.mkdir(parents=True)
        (place / "launch.json").write_text(json.dumps({"launch": name, "jobs": ["7"], "run": "r"}))
        for log in logs:
            (place / f"{log}.out").write_text(f"of {log}\n")
        shown = launched("logs", "--folder", str(folder), name, "--rank", "1")
        assert f"of {logs[-1]}" in shown.stdout
        line = told("logs", "--folder", str(folder), name, "--rank", "9")
        assert line == f"error: {name} has no log of rank 9; there are 0, 1"
