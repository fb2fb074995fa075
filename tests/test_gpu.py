"""What a CUDA device must show: `make gpu-check`. Skipped, with the reason, where there is none.

One rank speaks NCCL, several on one card speak gloo. Where one of two fails, the other is timed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dcgan_dist import evaluate, sample
from dcgan_dist.chaos.local_ranks import LocalRanks
from dcgan_dist.ranks.local import environment, free_port
from dcgan_dist.train import main
from tests.gan.test_batchnorm import whole
from tests.processes import run_ranks
from tests.test_promises import losses, weights, words
from tests.waiting import lines, until

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    # Drivers and toolkits warn of things of their own, as cuBLAS does in its first call from a new thread.
    pytest.mark.filterwarnings("default"),
]
CUDA = "--train.device=cuda"
PRECISIONS = ["float32", "bfloat16", "float16", "float64"]
Property = Callable[[str, object], None]


def differing(found: Path, expected: Path) -> list[str]:
    """Names of weights and moments whose bits differ between two runs."""
    ours, theirs = weights(found), weights(expected)
    assert ours.keys() == theirs.keys()
    return [name for name, value in theirs.items() if not torch.equal(ours[name], value)]


@pytest.mark.parametrize("precision", PRECISIONS[:3])
def test_training_on_the_gpu_follows_the_cpu(rooms16: str, tmp_path: Path, precision: str) -> None:
    more = [f"--train.precision={precision}", "--train.steps=6"]
    assert main([*words(rooms16, tmp_path / "cpu", "--train.steps=6"), "--train.precision=float32"]) == 0
    assert main([*words(rooms16, tmp_path / "gpu", *more), CUDA]) == 0
    tolerance = 1e-2 if precision == "float32" else 0.1
    for ours, theirs in zip(losses(tmp_path / "gpu"), losses(tmp_path / "cpu"), strict=True):
        for name in ("loss/d", "loss/g"):
            assert ours.get(name) == pytest.approx(theirs.get(name), rel=tolerance)


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_on_the_gpu_agree_with_one_process(rooms16: str, tmp_path: Path, ranks: int) -> None:
    more = ["--train.precision=float64", "--train.steps=6"]
    arguments = words(rooms16, tmp_path / "ranks", *more, CUDA)
    assert run_ranks(main, ranks, arguments) == [0] * ranks
    assert main([*words(rooms16, tmp_path / "one", *more), CUDA]) == 0
    for ours, theirs in zip(losses(tmp_path / "ranks"), losses(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_batch_norm_statistics_on_the_gpu_are_those_of_the_cpu() -> None:
    from dcgan_dist.gan.batchnorm import BatchNorm

    x, _ = whole((8, 6, 5, 5), torch.float32)
    norm = BatchNorm(6, eps=1e-8)
    for found, expected in zip(norm.cuda().statistics(x.cuda()), norm.cpu().statistics(x), strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", ["both", "alternate"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_stopped_run_ends_with_the_bits_of_the_unbroken_one(
    rooms16: str, tmp_path: Path, precision: str, ranks: int, rule: str
) -> None:
    more = [f"--train.precision={precision}", "--train.ema_decay=0.9", f"--train.update_rule={rule}", CUDA]
    for out, steps in (("unbroken", 8), ("broken", 3), ("broken", 8)):
        arguments = words(rooms16, tmp_path / out, *more, f"--train.steps={steps}")
        assert run_ranks(main, ranks, arguments) == [0] * ranks
    assert differing(tmp_path / "broken", tmp_path / "unbroken") == []
    assert losses(tmp_path / "broken") == losses(tmp_path / "unbroken")


@pytest.mark.parametrize("net", ["dcgan64", "imagenet32"])
def test_a_net_of_the_paper_repeats_its_bits(rooms16: str, tmp_path: Path, net: str) -> None:
    """At the sizes of the paper other kernels are chosen than for small networks."""
    from shards.building.build import build
    from shards.sources.drawn.rooms import Rooms

    size = 64 if net == "dcgan64" else 32
    data = str(tmp_path / "set")
    build(Rooms(256, size=size), data, size=size, workers=1)
    for out in ("one", "two"):
        more = [f"--model.net={net}", "--data.batch_images=64", "--train.steps=6", CUDA]
        assert main(words(data, tmp_path / out, *more, "--train.precision=auto")) == 0
    assert differing(tmp_path / "one", tmp_path / "two") == []


def test_a_killed_run_goes_on_to_the_bits_of_the_unbroken_one(rooms16: str, tmp_path: Path) -> None:
    more = ["--train.precision=bfloat16", "--train.steps=400", "--run.checkpoint_steps=20", CUDA]
    with LocalRanks(words(rooms16, tmp_path / "broken", *more), 1) as ranks:
        until(lambda: lines(tmp_path / "broken" / "metrics.jsonl") >= 50 or not ranks.running)
        assert ranks.running
        ranks.signal(signal.SIGKILL, 0)
        ranks.wait(30)
    for out in ("broken", "unbroken"):
        with LocalRanks(words(rooms16, tmp_path / out, *more), 1) as ranks:
            assert ranks.wait(60) == [0]
    assert differing(tmp_path / "broken", tmp_path / "unbroken") == []


def test_a_signal_stops_two_ranks_at_one_saved_step(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with LocalRanks(words(rooms16, out, "--train.steps=1000000", CUDA), 2) as ranks:
        until(lambda: lines(out / "metrics.jsonl") >= 10 or not ranks.running)
        ranks.signal(signal.SIGTERM, 1)
        assert ranks.wait(30) == [75, 75]


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_other_leaves_in_time_and_names_the_lost_rank(
    rooms16: str, tmp_path: Path, victim: int, number: signal.Signals, record_property: Property
) -> None:
    out, other = tmp_path / "run", 1 - victim
    with LocalRanks(words(rooms16, out, "--train.steps=1000000", CUDA), 2) as ranks:
        until(lambda: lines(out / "metrics.jsonl") >= 10 or not ranks.running)
        assert ranks.running
        ranks.signal(number, victim)
        began = time.monotonic()
        until(lambda: not ranks.processes[other].is_alive(), seconds=60)
        record_property("seconds", round(time.monotonic() - began, 1))
        told = ranks.told(other)
        record_property("message", told.splitlines()[-1] if told else "")
        assert time.monotonic() - began < 15
        assert ranks.processes[other].exitcode == 1
        assert f"lost rank {victim}" in told


FAILING = """
import sys, torch
from dcgan_dist.train import own_process
from dcgan_dist.training.trainer import Trainer
update = Trainer.update
def fail(self, step, *more):
    if step == 5 and self.here.rank == 1:
        {what}
    return update(self, step, *more)
Trainer.update = fail
raise SystemExit(own_process(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("raise RuntimeError('a fault of this rank alone')", "a fault of this rank alone"),
        ("torch.empty(2**46, device='cuda')", "out of memory"),
    ],
)
def test_a_rank_that_fails_tells_why_and_both_leave(
    rooms16: str, tmp_path: Path, what: str, message: str, record_property: Property
) -> None:
    arguments = words(rooms16, tmp_path / "run", "--train.steps=1000000", CUDA)
    port, began = free_port(), time.monotonic()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", FAILING.format(what=what), *arguments],
            env=os.environ | environment(rank, 2, port=port),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [rank.communicate(timeout=90)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    record_property("seconds", round(time.monotonic() - began, 1))
    record_property("message", told[1].strip().splitlines()[-1])
    assert message in told[1]
    assert [rank.returncode != 0 for rank in ranks] == [True, True]


STEADY = """
import sys, torch
from dcgan_dist.training.trainer import Trainer
update, done = Trainer.update, [0]
def strict(self, step, *more):
    torch.cuda.set_sync_debug_mode("error" if step >= 3 else "default")
    try:
        return update(self, step, *more)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        done[0] += step >= 3
Trainer.update = strict
from dcgan_dist.train import main
code = main(sys.argv[1:])
assert done[0] == 20, done
raise SystemExit(code)
"""


@pytest.mark.parametrize("rule", ["both", "alternate"])
@pytest.mark.parametrize("precision", PRECISIONS[:3])
def test_no_step_waits_for_the_device(rooms16: str, tmp_path: Path, precision: str, rule: str) -> None:
    more = [f"--train.precision={precision}", f"--train.update_rule={rule}", "--train.steps=23", CUDA]
    done = subprocess.run(
        [sys.executable, "-c", STEADY, *words(rooms16, tmp_path / "run", *more)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rule", ["both", "alternate"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graphs_have_the_bits_of_the_eager_run(
    rooms16: str, tmp_path: Path, precision: str, rule: str
) -> None:
    more = [f"--train.precision={precision}", "--train.ema_decay=0.9", f"--train.update_rule={rule}", CUDA]
    for out, graphs, steps in (("eager", "false", 9), ("broken", "true", 4), ("broken", "true", 9)):
        arguments = words(
            rooms16, tmp_path / out, *more, f"--train.graphs={graphs}", f"--train.steps={steps}"
        )
        assert main(arguments) == 0
    assert differing(tmp_path / "broken", tmp_path / "eager") == []
    assert losses(tmp_path / "broken") == losses(tmp_path / "eager")


@pytest.mark.parametrize("ranks", [1, 2])
def test_compiled_training_follows_the_eager_one(rooms16: str, tmp_path: Path, ranks: int) -> None:
    for name in ("true", "false"):
        more = [f"--train.compile={name}", "--train.precision=float32", "--train.steps=6", CUDA]
        arguments = words(rooms16, tmp_path / name, *more)
        assert run_ranks(main, ranks, arguments, timeout=240) == [0] * ranks
    for ours, theirs in zip(losses(tmp_path / "true"), losses(tmp_path / "false"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-2)


def test_samples_and_scores_are_drawn_on_the_gpu(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    scored = ["--eval.steps=4", "--eval.images=64", "--train.steps=8", "--run.sample_steps=4", CUDA]
    assert main(words(rooms16, run, *scored)) == 0
    for out in ("one.png", "two.png"):
        assert sample.main([str(run), "--out", str(tmp_path / out), "--device", "cuda"]) == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    told = []
    for _ in range(2):
        capsys.readouterr()
        assert evaluate.main([str(run), "--images", "128", "--device", "cuda"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
