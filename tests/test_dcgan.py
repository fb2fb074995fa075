"""`dcgan` as its user types it: names, ranks of this machine, one line of error, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from dcgan_dist.__main__ import COMMANDS, main
from dcgan_dist.checkpoints import checkpoint
from tests.test_promises import words
from tests.waiting import until

ROOT = Path(__file__).parent.parent
DCGAN = [sys.executable, "-m", "dcgan_dist"]


def start(arguments: Sequence[str], folder: Path) -> "subprocess.Popen[str]":
    """In a session of its own and another folder, as at a terminal."""
    return subprocess.Popen(
        [*DCGAN, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def said(process: "subprocess.Popen[str]") -> tuple[int, list[str]]:
    told, _ = process.communicate(timeout=120)
    return process.returncode, told.splitlines()


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]


def alive(pid: int) -> bool:
    place = Path(f"/proc/{pid}/stat")
    try:
        return place.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_help_names_every_command_and_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    told = capsys.readouterr().out
    package = ROOT / "dcgan_dist"
    modules = {path.stem for path in package.glob("*.py") if "def main" in path.read_text()} - {"__main__"}
    rooms = {path.parent.name for path in package.glob("*/__main__.py")}
    assert set(COMMANDS) == modules | rooms
    for name in (*COMMANDS, "demo", "lsun_bedroom"):
        assert name in told


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trains"], "error: dcgan has no command trains; did you mean dcgan train?"),
        (["what"], "error: dcgan has no command what; see dcgan --help"),
        (["train", "--ranks", "two"], "error: --ranks two: give how many, 1 or more"),
        (["train", "demo", "--ranks"], "error: --ranks without a number: give how many, 1 or more"),
    ],
)
def test_a_wrong_word_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_rank_starts_no_ranks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "demo", "--ranks", "2"]) == 2
    assert "is one of a launcher's already" in capsys.readouterr().err


def test_a_command_runs_whatever_lies_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError\n")
    (tmp_path / "demo").write_text("")  # and no configuration
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dcgan_dist", "config", "digits", "--skip-data"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "url: data/digits" in done.stdout


def test_ranks_of_this_machine_train_and_a_copy_goes_on_by_itself(rooms16: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = words(rooms16, run, "--train.steps=4", "--run.checkpoint_steps=4")
    code, told = said(start(["train", *settings, "--ranks", "2"], tmp_path))
    assert code == 0, told
    assert any("2 ranks on 1 node" in line for line in told), told
    assert told[-1].startswith("done: ")
    run.rename(tmp_path / "moved")
    code, told = said(start(["train", "--resume", "moved", "--ranks=2", "--train.steps=6"], tmp_path))
    assert code == 0, told
    assert checkpoint.steps(str(tmp_path / "moved" / "checkpoints"))[-1] == 6
    assert not run.exists()
    code, told = said(start(["train", "--resume", "nowhere", "--ranks=2"], tmp_path))
    assert (code, told) == (2, ["error: --resume nowhere: no run is there, for it has no config.yaml"])


def test_a_wrong_setting_is_told_once(rooms16: str, tmp_path: Path) -> None:
    settings = words(rooms16, tmp_path / "run", "--data.batch_images=7")
    code, told = said(start(["train", *settings, "--ranks", "2"], tmp_path))
    assert code == 2
    assert len(told) == 1, told
    assert told[0].startswith("error: data.batch_images=7 does not divide over 2 ranks")


@pytest.mark.parametrize("early", [True, False])
def test_ctrl_c_is_clean(rooms16: str, tmp_path: Path, early: bool) -> None:
    """Before the ranks have imported torch, and while they train."""
    run = tmp_path / "run"
    process = start(["train", *words(rooms16, run, "--train.steps=100000"), "--ranks", "2"], tmp_path)
    until(lambda: len(children(process.pid)) == 2 if early else (run / "metrics.jsonl").exists())
    ranks = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    code, told = said(process)
    assert not any(map(alive, ranks))
    if early:
        assert code in (75, 130), told
        assert len(told) <= 3, told
    else:
        assert code == 75, told
        assert told[-1].startswith("stopped by SIGINT and saved at step ")
        assert not any("Traceback" in line for line in told)


@pytest.mark.slow
def test_ranks_end_with_what_started_them(rooms16: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(["train", *words(rooms16, run, "--train.steps=100000"), "--ranks", "2"], tmp_path)
    until((run / "metrics.jsonl").exists)
    ranks = children(process.pid)
    process.kill()
    said(process)
    until(lambda: not any(map(alive, ranks)))
    assert checkpoint.steps(str(run / "checkpoints"))  # they were told to stop, and saved


@pytest.mark.slow
def test_a_killed_rank_ends_them_all(rooms16: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(["train", *words(rooms16, run, "--train.steps=100000"), "--ranks", "2"], tmp_path)
    until((run / "metrics.jsonl").exists)
    began = time.monotonic()
    os.kill(children(process.pid)[1], signal.SIGKILL)
    code, told = said(process)
    assert code == 128 + signal.SIGKILL
    assert "rank 1" in told[-1]
    assert told[-1].startswith("error: rank 0: ")
    assert time.monotonic() - began < 60
