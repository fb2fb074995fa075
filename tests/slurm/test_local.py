"""The jobs of a cluster as processes of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="the extra slurm brings submitit")

from tests.slurm.launching import ROOT
from tests.test_promises import losses, run, words


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
