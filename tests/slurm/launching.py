"""Runs the launcher as a user does, on a machine without Slurm or with a few of its commands."""

import os
import subprocess
import sys
from pathlib import Path

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
