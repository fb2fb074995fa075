"""The promises on the front page, each shown on real gloo ranks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.train import main
from tests.processes import run_ranks

STEPS = 20


def words(data: str, out: Path, *more: str) -> list[str]:
    settings = {
        "data.url": data,
        "data.batch_images": "16",
        "model.net": "tiny16",
        "run.dir": str(out),
        "run.log_steps": "1",
        "run.sample_images": "4",
        "train.steps": str(STEPS),
        "train.device": "cpu",
        "train.precision": "float32",
    }
    return [f"--{name}={value}" for name, value in settings.items()] + list(more)


def run(ranks: int, arguments: list[str]) -> None:
    assert run_ranks(main, ranks, arguments) == [0] * ranks


def weights(out: Path) -> dict[str, Tensor]:
    found = checkpoint.read_newest(str(out / "checkpoints"))
    assert found is not None
    return {f"{part}.{name}": value for part, tensors in found[1].items() for name, value in tensors.items()}


def losses(out: Path) -> list[dict[str, Any]]:
    names = ("step", "loss/d", "loss/g", "d/real", "gradient/d", "gradient/g")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in names if name in line} for line in lines]


@pytest.mark.parametrize("rule", ["alternate", "both"])
def test_the_same_run_on_any_number_of_ranks(rooms16: str, tmp_path: Path, rule: str) -> None:
    more = ["--train.precision=float64", f"--train.update_rule={rule}", "--train.ema_decay=0.9"]
    for ranks in (1, 2, 4):
        run(ranks, words(rooms16, tmp_path / str(ranks), *more))
    expected, expected_losses = weights(tmp_path / "1"), losses(tmp_path / "1")
    assert len(expected_losses) == STEPS
    for ranks in (2, 4):
        found = weights(tmp_path / str(ranks))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)
        for line, wanted in zip(losses(tmp_path / str(ranks)), expected_losses, strict=True):
            # Metrics are carried in float32.
            assert line == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("precision", "ranks"), [("float32", 2), ("bfloat16", 2), ("float32", 4)])
def test_a_run_that_stopped_ends_where_the_unbroken_one_ends(
    rooms16: str, tmp_path: Path, precision: str, ranks: int
) -> None:
    more = [f"--train.precision={precision}", "--train.ema_decay=0.9"]
    run(ranks, words(rooms16, tmp_path / "unbroken", *more))
    run(ranks, words(rooms16, tmp_path / "broken", *more, "--train.steps=7"))
    run(ranks, words(rooms16, tmp_path / "broken", *more))
    expected, found = weights(tmp_path / "unbroken"), weights(tmp_path / "broken")
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
    assert losses(tmp_path / "broken") == losses(tmp_path / "unbroken")


def test_a_run_resumes_on_another_number_of_ranks(rooms16: str, tmp_path: Path) -> None:
    more = ["--train.precision=float64"]
    run(1, words(rooms16, tmp_path / "unbroken", *more))
    run(4, words(rooms16, tmp_path / "moved", *more, "--train.steps=7"))
    run(2, words(rooms16, tmp_path / "moved", *more))
    expected, found = weights(tmp_path / "unbroken"), weights(tmp_path / "moved")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)
