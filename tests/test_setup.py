"""`make` before anything is installed: an old Python is one line, and a broken environment is made anew."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # Not as a part of the make that these tests may run under, which says where it is.
    here = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *words], cwd=folder, env=here, capture_output=True, text=True, timeout=120, check=False
    )


def test_an_old_python_is_one_line_that_names_the_way_out(checkout: Path) -> None:
    old = checkout / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.2 || exit 1\n')
    old.chmod(0o755)
    done = make(checkout, "test", f"PYTHON3={old}")
    assert done.returncode == 2
    line = "error: Python 3.10.2 is older than 3.11, which is needed; name a newer one: "
    assert done.stdout.splitlines() == [f"{line}make test PYTHON3=python3.12"]
    assert not (checkout / ".venv").exists()


def test_a_broken_environment_is_made_anew_and_what_comes_is_told(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/nowhere/python3.9")
    done = make(checkout, ".venv/.installed-run", "PIP=echo pip")
    assert done.returncode == 0, done.stderr
    assert subprocess.run([python, "-c", "import pip"], check=False).returncode == 0
    assert "pip -e ." in done.stdout
    told = [line for line in done.stdout.splitlines() if "may bring CUDA" in line]
    assert len(told) == (shutil.which("nvidia-smi") is None)
    done = make(checkout, ".venv/.installed-run", "PIP=echo pip", "TORCH_INDEX=there", "-B")
    assert "pip --index-url there torch" in done.stdout
    assert "may bring CUDA" not in done.stdout
