"""Storage that hangs keeps no run from stopping, saved, nor from noticing that a rank is gone."""

import os
import signal
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.ranks.stopping import STOPPED
from dcgan_dist.stream.fetch import Fetch
from dcgan_dist.train import own_process
from tests.processes import run_ranks
from tests.test_promises import losses, run, weights, words
from tests.waiting import lines, until


def train_until_storage_hangs(arguments: list[str], out: Path, hung: int, told: int, number: int) -> int:
    """A run whose rank `hung` gets no more data after some steps; then rank `told` gets the signal."""
    rank, read = int(os.environ.get("RANK", "0")), Fetch._read_run
    hangs = threading.Event()

    def hanging(self: Fetch, blocks: Any) -> Any:
        if rank == hung and lines(out / "metrics.jsonl") >= 5:
            hangs.set()
            threading.Event().wait()
        return read(self, blocks)

    def strike() -> None:
        if rank == hung:
            hangs.wait()
            (out / "hangs").touch()
        until((out / "hangs").exists)
        steps = -1
        while steps != lines(out / "metrics.jsonl"):  # what was read ahead is used up
            steps = lines(out / "metrics.jsonl")
            threading.Event().wait(1)
        if rank == told:
            os.kill(os.getpid(), number)

    threading.Thread(target=strike, daemon=True).start()
    with patch.object(Fetch, "_read_run", hanging):
        return own_process(arguments)


@pytest.mark.parametrize(
    ("ranks", "hung", "told"),
    [
        (1, 0, 0),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(2, 1, 0), (2, 1, 1), (2, 0, 0)]),
    ],
)
def test_a_run_whose_data_do_not_come_stops_and_loses_no_step(
    rooms16: str, tmp_path: Path, ranks: int, hung: int, told: int
) -> None:
    out = tmp_path / "run"
    arguments = words(rooms16, out, "--train.steps=1000000", "--train.ema_decay=0.9")
    codes = run_ranks(train_until_storage_hangs, ranks, arguments, out, hung, told, int(signal.SIGTERM))
    assert codes == [STOPPED] * ranks
    step = checkpoint.steps(str(out / "checkpoints"))[-1]
    assert step == lines(out / "metrics.jsonl") >= 5
    more = [f"--train.steps={step + 4}", "--train.ema_decay=0.9"]
    run(ranks, words(rooms16, out, *more))
    run(ranks, words(rooms16, tmp_path / "unbroken", *more))
    expected, found = weights(tmp_path / "unbroken"), weights(out)
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
    assert losses(out) == losses(tmp_path / "unbroken")
