"""A run that is killed at random moments ends where the unbroken one ends."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dcgan_dist.chaos import stops
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


@pytest.mark.slow
def test_two_stops_leave_no_trace_and_are_named(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(broken(rooms16, tmp_path, "--kills=2", "--stop")) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert out.count("newest checkpoint") == 2
    assert "slowest to leave after a kill or stop " in out


class Ranks:
    """Of three, the others of rank 1 have left with `codes` and said `words`."""

    ranks = 3

    def __init__(self, codes: dict[int, int], words: dict[int, str]) -> None:
        self.words = words
        self.processes = {rank: SimpleNamespace(exitcode=code) for rank, code in codes.items()}

    def told(self, rank: int) -> str:
        return self.words[rank]


NAMED = "step 3\nerror: rank {}: lost rank 1 silent for 9 s: stopped, or its machine or network hangs\n"


@pytest.mark.parametrize(
    ("code", "words", "has_ended", "told"),
    [
        (1, NAMED.format(2), False, []),
        (0, "done", True, []),
        (0, "done", False, ["rank 1 was stopped: rank 2 left with 0 and said: nothing"]),
        (75, NAMED.format(2), False, ["rank 2 left with 75"]),
        (1, "error: rank 2: lost rank 0 without a word", False, ["said: error: rank 2: lost rank 0"]),
        (1, 2 * NAMED.format(2), False, ["rank 2 left with 1 and said: error"]),
    ],
)
def test_who_does_not_name_a_stopped_rank_is_told_of(
    code: int, words: str, has_ended: bool, told: list[str]
) -> None:
    ranks = Ranks({0: 1, 2: code}, {0: NAMED.format(0), 2: words})
    found = list(stops.faults(ranks, 1, has_ended=has_ended))  # type: ignore[arg-type]
    assert len(found) == len(told)
    assert all(part in line for part, line in zip(told, found, strict=True))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("--kills=-1", "--kills=-1 must be at least 0"),
        ("--ranks=0", "--ranks=0 must be at least 1"),
        ("--ranks=3", "data.batch_images=16 does not divide over 3 ranks"),
        ("--run.checkpoint_steps=60", "run.checkpoint_steps=60 leaves nothing to go on from in a run of 60"),
        ("--stop --torchrun", "--stop goes with neither --torchrun nor --change-ranks"),
        ("--stop --ranks=1", "--ranks=1 must be at least 2"),
        ("--dir=/", "--dir=/ must be a local folder that is not there yet"),
    ],
)
def test_a_wrong_word_is_one_line(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, told: str
) -> None:
    assert main(broken(rooms16, tmp_path, *more.split())) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
