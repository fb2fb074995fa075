"""A checkpoint is read by rank 0 alone, and taken when it is due by steps or by minutes."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.ranks import world
from dcgan_dist.ranks.world import World
from dcgan_dist.train import main
from dcgan_dist.training import trainer
from dcgan_dist.training.resume import newest_on_all
from shards.storage import store
from tests.processes import run_ranks
from tests.test_promises import losses, run, weights, words


def train_with_storage_of_rank_0(arguments: list[str]) -> int:
    """`main` on ranks of which all but rank 0 have no checkpoints."""
    if os.environ["RANK"] != "0":

        def absent(*given: Any, **named: Any) -> None:
            raise AssertionError("only rank 0 reads checkpoints")

        checkpoint.read = checkpoint.read_newest = absent  # type: ignore[assignment]
    return main(arguments)


def test_ranks_without_the_run_folder_go_on_from_what_rank_0_reads(rooms16: str, tmp_path: Path) -> None:
    more = ["--train.precision=bfloat16", "--train.ema_decay=0.9"]
    run(2, words(rooms16, tmp_path / "unbroken", *more, "--train.steps=9"))
    for steps in (5, 9):
        out = words(rooms16, tmp_path / "broken", *more, f"--train.steps={steps}")
        assert run_ranks(train_with_storage_of_rank_0, 2, out) == [0, 0]
    expected, found = weights(tmp_path / "unbroken"), weights(tmp_path / "broken")
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
    assert losses(tmp_path / "broken") == losses(tmp_path / "unbroken")


def newest(run_dir: str) -> tuple[Any, Any]:
    with world.join(device="cpu", timeout_seconds=60) as here:
        found = newest_on_all(run_dir, here, saved=0)
    assert found is not None
    return found[0].facts, found[1]


def test_all_ranks_hear_every_fact_and_bit(tmp_path: Path) -> None:
    folder = store.join(str(tmp_path), "checkpoints")
    bits = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    parts = {
        "g": {"a": bits, "half": bits.half(), "b.c": torch.zeros(0, 3)},
        "g_optim": {"0.step": torch.tensor(7.0), "0.exp_avg": bits.double().view(2, 2)},
    }
    store.make_folder(folder)
    checkpoint.write(folder, 4, parts, {"told": {"a": [1.5, None, "\u00e9"]}})
    for facts, found in run_ranks(newest, 2, str(tmp_path)):
        assert facts["told"] == {"a": [1.5, None, "\u00e9"]}
        assert {part: set(tensors) for part, tensors in found.items()} == {
            "g": {"a", "half", "b.c"},
            "g_optim": {"0.step", "0.exp_avg"},
        }
        for part, tensors in parts.items():
            for name, value in tensors.items():
                same = found[part][name]
                assert (same.dtype, same.shape) == (value.dtype, value.shape)
                assert same.numpy().tobytes() == value.numpy().tobytes()


def test_a_checkpoint_is_taken_when_the_last_is_old(
    rooms16: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])
    step = trainer.Trainer.step

    def slow_step(self: Any, *given: Any) -> None:
        now[0] += 21.0
        step(self, *given)

    monkeypatch.setattr(trainer.Trainer, "step", slow_step)
    kept = ["--run.checkpoints_kept=99", "--train.steps=14", "--run.log_steps=2"]
    for minutes, steps in (("1", [4, 8, 12, 14]), ("null", [14]), ("1000", [14])):
        out = tmp_path / minutes
        assert main(words(rooms16, out, *kept, f"--run.checkpoint_minutes={minutes}")) == 0
        assert checkpoint.steps(str(out / "checkpoints")) == steps


def test_the_clock_of_rank_0_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    ages = []
    monkeypatch.setattr(World, "agree", lambda here, number: ages.append(number) or 1)
    clock = trainer.Clock(World.alone(), 1e6, first=3)
    assert clock.is_late()
    assert (ages, clock.saved_step) == ([0], 3)
