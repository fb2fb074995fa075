"""The jobs of a cluster as processes of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="the extra slurm brings submitit")

from dcgan_dist.slurm.task import VISIBLE
from tests.slurm.launching import ROOT
from tests.test_promises import losses, run, words


@pytest.mark.parametrize("visible", [None, "", "4,5", "GPU-8a1b,MIG-2"])
def test_ranks_here_see_the_gpus_that_the_user_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    path = f"{tmp_path}/seen."
    program = (
        f"import os; open('{path}' + os.environ['RANK'], 'w').write(os.environ.get('{VISIBLE}', 'none'))"
    )
    lines = [
        "from dcgan_dist.slurm.local import run_here; from dcgan_dist.slurm.jobs import make_job",
        "from dcgan_dist.slurm.task import Task; from pathlib import Path",
        f"task, folder = Task(('-c', {program!r})), Path({str(tmp_path / 'launch')!r})",
        "asked = dict(nodes=1, ntasks_per_node=2, gpus_per_node=2)",
        "job = make_job([task], folder, {}, before=[], max_failures=0, **asked)",
        "raise SystemExit(run_here('local', folder, job))",
    ]
    monkeypatch.delenv(VISIBLE, raising=False)
    given = {} if visible is None else {VISIBLE: visible}
    subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], env={**os.environ, **given}, cwd=ROOT, check=True
    )
    expected = "none" if visible is None else visible
    assert [Path(f"{path}{rank}").read_text() for rank in (0, 1)] == [expected] * 2


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
