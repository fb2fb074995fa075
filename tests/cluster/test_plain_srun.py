"""What a process that Slurm started knows of others, on a real Slurm: only srun's tasks are many."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.jobs import ROOT
from tests.cluster.slurm import Cluster

pytestmark = pytest.mark.slurm
ASK = """\
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.ranks import launcher
try:
    answer = f"{launcher.launched_ranks()} rank"
except ConfigError as error:
    answer = str(error) if launcher.tells(error) else "silent"
import sys
print(sys.argv[1], answer, flush=True)
"""
REFUSED = "srun started 2 processes, but RANK is not set"


@pytest.mark.slow
def test_a_batch_script_and_a_shell_are_one_process_and_srun_is_many(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(ASK)
    ask = f"{sys.executable} {tmp_path}/ask.py"
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n{ask} batch\nsrun {ask} srun\nsrun -n 1 {ask} single\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment = clean | slurm.environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def tell(*command: str) -> str:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path
        )
        return done.stdout

    tell("sbatch", "--wait", "--ntasks=2", "--mem-per-cpu=500", "--output=out", str(script))
    lines = (tmp_path / "out").read_text().splitlines()
    assert [line for line in lines if line.startswith("batch")] == ["batch 1 rank"]
    first, silent = sorted((line for line in lines if line.startswith("srun")), key=len, reverse=True)
    assert first.startswith(f"srun {REFUSED}")
    assert silent == "srun silent"
    assert [line for line in lines if line.startswith("single")] == ["single 1 rank"]
    assert tell("salloc", "--ntasks=2", "--mem-per-cpu=500", *ask.split(), "shell") == "shell 1 rank\n"
