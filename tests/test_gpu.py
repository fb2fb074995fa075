"""What a CUDA device must show: `make gpu-check`. Skipped, with the reason, where there is none."""

from pathlib import Path

import pytest
import torch

from dcgan_dist.train import main
from tests.gan.test_batchnorm import whole
from tests.processes import run_ranks
from tests.test_promises import losses, words

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_the_gpu_follows_the_cpu(rooms16: str, tmp_path: Path, precision: str) -> None:
    more = [f"--train.precision={precision}", "--train.steps=6"]
    assert main([*words(rooms16, tmp_path / "cpu", "--train.steps=6"), "--train.precision=float32"]) == 0
    assert main([*words(rooms16, tmp_path / "gpu", *more), "--train.device=cuda"]) == 0
    tolerance = 1e-2 if precision == "float32" else 0.1
    for ours, theirs in zip(losses(tmp_path / "gpu"), losses(tmp_path / "cpu"), strict=True):
        for name in ("loss/d", "loss/g"):
            assert ours.get(name) == pytest.approx(theirs.get(name), rel=tolerance)


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_on_the_gpu_agree_with_one_process(rooms16: str, tmp_path: Path, ranks: int) -> None:
    """One rank speaks NCCL; two on one card speak gloo."""
    more = ["--train.precision=float64", "--train.steps=6"]
    arguments = words(rooms16, tmp_path / "ranks", *more, "--train.device=cuda")
    assert run_ranks(main, ranks, arguments) == [0] * ranks
    assert main([*words(rooms16, tmp_path / "one", *more), "--train.device=cuda"]) == 0
    for ours, theirs in zip(losses(tmp_path / "ranks"), losses(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_batch_norm_statistics_on_the_gpu_are_those_of_the_cpu() -> None:
    from dcgan_dist.gan.batchnorm import BatchNorm

    x, _ = whole((8, 6, 5, 5), torch.float32)
    norm = BatchNorm(6, eps=1e-8)
    for found, expected in zip(norm.cuda().statistics(x.cuda()), norm.cpu().statistics(x), strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)
