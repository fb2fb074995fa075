"""Scores during training, on several ranks, and by the command."""

import json
from pathlib import Path

import pytest
import torch

from dcgan_dist import evaluate, train
from dcgan_dist.checkpoints import checkpoint
from tests.processes import run_ranks
from tests.test_promises import words


def scored(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "eval/swd" in line]


def test_scores_are_logged_with_their_protocol_and_do_not_touch_training(
    rooms16: str, tmp_path: Path
) -> None:
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    more = ["--train.steps=4", "--train.precision=float64"]
    assert train.main(words(rooms16, plain, *more)) == 0
    asked = [*more, "--eval.steps=3", "--eval.images=64"]
    assert run_ranks(train.main, 2, words(rooms16, watched, *asked)) == [0, 0]
    first, last = scored(watched)
    assert (first["step"], last["step"]) == (3, 4)
    assert {
        "eval/swd_floor",
        "eval/precision",
        "eval/coverage",
        "eval/ndb",
        "eval/nearest_ratio",
    } <= last.keys()
    assert last["protocol"]["images"] == 64  # type: ignore[index]
    losses = [
        [
            line["loss/d"]
            for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
            if "loss/d" in line
        ]
        for out in (plain, watched)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)  # told in float32


def test_the_best_checkpoint_is_kept_also_over_a_restart(rooms16: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    every = ["--eval.steps=2", "--eval.images=64", "--run.checkpoint_steps=2", "--run.checkpoints_kept=1"]
    arguments = words(rooms16, run, *every, "--run.checkpoint_best=swd", "--optim.lr=0.02")
    for steps in (8, 16):
        assert train.main([*arguments, f"--train.steps={steps}"]) == 0
        scores = {int(line["step"]): line["eval/swd"] for line in scored(run)}
        assert list(scores) == list(range(2, steps + 1, 2))
        best = min(scores, key=lambda step: scores[step])
        assert checkpoint.steps(str(run / "checkpoints")) == sorted({best, steps})
    assert best != 16, "the last is kept anyway"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["swd"], "needs eval.steps, a multiple of run.checkpoint_steps=1000, not null"),
        (["swd", "--eval.steps=300"], "a multiple of run.checkpoint_steps=1000, not 300"),
        (["fid", "--eval.steps=1000"], "needs eval.inception"),
    ],
)
def test_a_best_checkpoint_that_cannot_be_known(
    rooms16: str, tmp_path: Path, given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(words(rooms16, tmp_path / "run", f"--run.checkpoint_best={given[0]}", *given[1:])) == 2
    assert told in capsys.readouterr().err


def test_the_command_keeps_what_it_prints(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(words(rooms16, run, "--train.steps=2")) == 0
    capsys.readouterr()
    torch.set_num_threads(1)  # as the ranks below
    assert evaluate.main([str(run), "--images", "64"]) == 0
    alone = json.loads((run / "scores" / "step-00000002.json").read_text())
    told = capsys.readouterr().out
    assert f"{alone['scores']['swd']:.4g}" in told
    for name, way in (("swd", "lower"), ("precision", "higher"), ("js", "lower"), ("nearest", "")):
        (line,) = (line for line in told.splitlines() if line.split()[0] == name and "step 0" not in line)
        assert line.endswith(way) if way else line.split()[-1] not in ("lower", "higher")
    ratio = alone["swd_at_step_0"] / alone["scores"]["swd"]
    nearer = f"{ratio:.1f}x nearer" if ratio >= 1.05 else "no nearer"
    assert told.splitlines()[-1].startswith(f"By swd the samples are {nearer} than at step 0")
    assert alone["protocol"]["batch_norm"].startswith("frozen over 20 batches")
    assert "a fair sample of 128" in alone["protocol"]["real"]
    for ranks in (2, 4):
        assert run_ranks(evaluate.main, ranks, [str(run), "--images", "64"]) == [0] * ranks
        together = json.loads((run / "scores" / "step-00000002.json").read_text())
        assert together["scores"] == alone["scores"]
    assert evaluate.main([str(run), "--images", "64", "--inception", "nowhere.pt"]) == 2
    told = capsys.readouterr().err
    assert "eval.inception=nowhere.pt is not there" in told
    assert told.count("\n") == 1
