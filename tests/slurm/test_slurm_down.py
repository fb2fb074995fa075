"""The launcher where submitit or the cluster's controller is missing, or other jobs have odd names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def launched(tmp_path: Path, *words: str, code: str = "import sys") -> subprocess.CompletedProcess[str]:
    """The launcher where only the commands in `bin` exist beside the system's."""
    start = "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    run = f"{code}; import runpy; {start}"
    return subprocess.run(
        [sys.executable, "-c", run, str(ROOT / "launch" / "slurm.py"), *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def launch_of(tmp_path: Path) -> str:
    folder = tmp_path / "launches" / "train-1"
    folder.mkdir(parents=True)
    launch = {"launch": "train-1", "run": "runs/a", "jobs": ["7"], "cluster": "slurm"}
    (folder / "launch.json").write_text(json.dumps(launch))
    return str(tmp_path / "launches")


@pytest.mark.parametrize("missing", ["submitit", "dcgan_dist"])
def test_what_is_not_installed_is_one_line_in_any_folder(tmp_path: Path, missing: str) -> None:
    code = f"import os, sys; sys.modules['{missing}'] = None; os.chdir('{tmp_path}')"
    done = launched(tmp_path, "status", code=code)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the launcher needs {missing}")
    assert line.endswith(f"pip install -c constraints.txt -e '.[slurm]' in {ROOT}")


def test_it_runs_from_another_folder(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra slurm brings submitit")
    done = launched(tmp_path, "status", "--folder", "none", code=f"import os, sys; os.chdir('{tmp_path}')")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no launches in none yet; ")


@pytest.mark.parametrize("name", ["a|b", "|||||||", "a|7|RUNNING|None|node1|dcgan", "two\\nlines"])
def test_the_names_of_other_jobs_do_not_disturb_status(tmp_path: Path, name: str) -> None:
    pytest.importorskip("submitit", reason="the extra slurm brings submitit")
    rows = f"8|8|RUNNING|None|n1|{name}\\n7|7|PENDING|Priority||dcgan\\n"
    # As squeue does: what is asked for, in the order in which it is asked for.
    fake(
        tmp_path / "bin",
        "squeue",
        f"case \"$*\" in *'%i|%F|%T|%r|%N|%j'*) printf '{rows}';; *) exit 1;; esac",
    )
    done = launched(tmp_path, "status", "--folder", launch_of(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["train-1: runs/a", "  7 PENDING (Priority)"]


def test_a_controller_that_cannot_be_asked_is_told_as_such(tmp_path: Path, rooms16: str) -> None:
    pytest.importorskip("submitit", reason="the extra slurm brings submitit")
    for name in ("squeue", "sbatch", "sinfo"):
        fake(tmp_path / "bin", name, f"echo '{name}: error: Unable to contact slurm controller' >&2; exit 1")
    words = [f"--data.url={rooms16}", "--model.net=tiny16", "--data.batch_images=16", "--partition", "gpu"]
    for command in (["train", *words, f"--run.dir={tmp_path}/run"], ["status"]):
        done = launched(tmp_path, *command, "--folder", launch_of(tmp_path / command[0]))
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2
        assert "Unable to contact slurm controller" in line
        assert "is no option" not in line
