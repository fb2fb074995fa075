"""Batch norm over the global batch: one rank's mathematics on any number of ranks."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from dcgan_dist.gan import batchnorm
from dcgan_dist.gan.batchnorm import BatchNorm, synchronise
from dcgan_dist.ranks import world
from tests.processes import run_ranks

SHAPES = [(8, 6), (8, 6, 5, 5)]


def whole(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The global batch and the gradient that reaches its output; a mean far from 0 shows cancellation."""
    draw = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    return (x * 3 + 10).to(dtype), dy.to(dtype)


def make_norm(dtype: torch.dtype) -> BatchNorm:
    norm = BatchNorm(6, eps=1e-8).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 6))
        norm.bias.copy_(torch.linspace(-1, 1, 6))
    return norm


def on_rank(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Output, gradients and statistics of this rank's rows, computed with all ranks."""
    with world.join(device="cpu", timeout_seconds=60) as here:
        x, dy = (part.chunk(here.ranks)[here.rank].clone() for part in whole(shape, dtype))
        norm = make_norm(dtype)
        synchronise(norm, here.group)
        y = norm(x.requires_grad_())
        y.backward(dy)
        assert x.grad is not None
        assert norm.weight.grad is not None
        assert norm.bias.grad is not None
        found = [y.detach(), x.grad, norm.weight.grad, norm.bias.grad, *norm.statistics(x.detach())]
        return [tensor.clone() for tensor in found]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_normalise_as_one(shape: tuple[int, ...], ranks: int) -> None:
    alone = run_ranks(on_rank, 1, shape, torch.float64)[0]
    parts = run_ranks(on_rank, ranks, shape, torch.float64)
    joined = [torch.cat([part[i] for part in parts]) for i in (0, 1)]
    joined += [torch.stack([part[i] for part in parts]).sum(0) for i in (2, 3)]
    joined += [parts[-1][i] for i in (4, 5)]
    for found, expected in zip(joined, alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def two_batches(together: bool) -> tuple[list[Tensor], int]:
    """Outputs and gradients of a batch and another one on this rank, and how often ranks exchanged sums."""
    with world.join(device="cpu", timeout_seconds=60) as here:
        x, dy = (part.chunk(here.ranks)[here.rank].clone() for part in whole(SHAPES[1], torch.float64))
        batches = [x.requires_grad_(), (x.detach() ** 2).requires_grad_()]
        norm = make_norm(torch.float64)
        synchronise(norm, here.group)
        with patch.object(batchnorm, "gather", wraps=batchnorm.gather) as exchanged:
            ys = norm.apart(batches) if together else [norm(batch) for batch in batches]
            torch.autograd.backward(list(ys), [dy, dy * 2])
        found = [*ys, *(batch.grad for batch in batches), norm.weight.grad, norm.bias.grad]
        return [tensor.detach().clone() for tensor in found if tensor is not None], exchanged.call_count


def test_batches_given_together_are_normalised_apart_with_half_the_collectives() -> None:
    for (alone, twice), (together, once) in zip(
        run_ranks(two_batches, 2, False), run_ranks(two_batches, 2, True), strict=True
    ):
        assert (once, twice) == (2, 4)
        assert len(together) == 6
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_saved_is_the_same_as_an_empty_tensor_to_the_bit(shape: tuple[int, ...]) -> None:
    x, dy = whole(shape, torch.float64)
    mean, var = make_norm(torch.float64).statistics(x)
    none = mean.new_empty(0)
    backward = torch.ops.aten.native_batch_norm_backward
    one, other = (
        backward(dy, x, torch.ones_like(mean), mean, var, saved, saved, False, 1e-8, [True] * 3)
        for saved in (None, none)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_one_rank_equals_torch_batch_norm(shape: tuple[int, ...]) -> None:
    x, dy = whole(shape, torch.float64)
    theirs = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(6, eps=1e-8).double()
    theirs.load_state_dict(make_norm(torch.float64).state_dict(), strict=False)
    norm = make_norm(torch.float64)
    gradients = []
    for module in (norm, theirs):
        y = module(x.requires_grad_())
        gradients.append((y.detach(), *torch.autograd.grad(y, (x, module.weight, module.bias), dy)))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_normalised_with_float32_statistics(dtype: torch.dtype) -> None:
    x = (torch.randn(64, 6, 8, 8) * 3 + 10).to(dtype)
    mean, var = make_norm(torch.float32).statistics(x)
    assert mean.dtype == var.dtype == torch.float32
    torch.testing.assert_close(mean, x.float().mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(var, x.float().var((0, 2, 3), unbiased=False), rtol=1e-4, atol=1e-4)


def test_without_frozen_statistics_evaluation_is_refused() -> None:
    with pytest.raises(RuntimeError, match="calibrate"):
        BatchNorm(6, eps=1e-8).eval()(torch.rand(4, 6))
