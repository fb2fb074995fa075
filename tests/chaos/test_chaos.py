"""A run that is killed at random moments ends where the unbroken one ends."""

from pathlib import Path

import pytest

from dcgan_dist.chaos.kill import main
from tests.test_promises import words


def broken(rooms16: str, tmp_path: Path, *more: str) -> list[str]:
    run = [word for word in words(rooms16, tmp_path) if not word.startswith(("--run.dir", "--train.steps"))]
    steps = ["--train.steps=60", "--run.checkpoint_steps=10", "--train.ema_decay=0.9"]
    return [*run, *steps, f"--dir={tmp_path / 'chaos'}", *more]


@pytest.mark.slow
def test_three_kills_leave_no_trace(rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(broken(rooms16, tmp_path, "--kills=3")) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert out.count("newest checkpoint") == 3
    assert "kills                                 3" in out


@pytest.mark.slow
def test_two_kills_under_torchrun_leave_no_trace(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(broken(rooms16, tmp_path, "--kills=2", "--torchrun")) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert out.count("under torchrun; newest checkpoint") == 2
    assert "restarted-0 ended: as the unbroken run" in out


@pytest.mark.slow
def test_kills_and_other_numbers_of_ranks_change_nothing_but_rounding(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(broken(rooms16, tmp_path, "--kills=5", "--change-ranks")) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("--kills=-1", "--kills=-1 must be at least 0"),
        ("--ranks=0", "--ranks=0 must be at least 1"),
        ("--ranks=3", "data.batch_images=16 does not divide over 3 ranks"),
        ("--run.checkpoint_steps=60", "run.checkpoint_steps=60 leaves nothing to go on from in a run of 60"),
        ("--dir=/", "--dir=/ must be a local folder that is not there yet"),
    ],
)
def test_a_wrong_word_is_one_line(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, told: str
) -> None:
    assert main(broken(rooms16, tmp_path, more)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
