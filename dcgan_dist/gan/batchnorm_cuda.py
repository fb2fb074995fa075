"""Batch norm over all ranks by CUDA's own kernels: five launches forwards and five backwards for a layer.

Forwards: mean and 1/std of this rank's rows, one gather, one kernel that puts the ranks' together in their
order (Welford's way, which subtracts no large numbers; Chan et al. 1979), one that normalises. Backwards: the
two sums, one gather, one addition in the order of ranks, one kernel for dx. In half precision every number is
rounded once. Statistics are in float32 (float64 of float64). Nothing here runs on a CPU.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from dcgan_dist.gan.exchange import gather, opaque


def there_for(x: Tensor) -> bool:
    """Whether these kernels are those of the device that `x` is on."""
    return x.is_cuda


def normalise(
    weight: Tensor, bias: Tensor, eps: float, group: dist.ProcessGroup, batches: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """y = w (x - mean)/std + b of each x, (n, features) or (n, channels, h, w), by its own statistics."""
    normalised: tuple[Tensor, ...] = _Normalise.apply(  # type: ignore[no-untyped-call]
        weight, bias, eps, group, *batches
    )
    return normalised


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type that kernels accumulate numbers of `dtype` in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@lru_cache(maxsize=64)
def _constant(value: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((size,), value, dtype=dtype, device=device)


def _fake_normalised(
    batches: list[Tensor], weight: Tensor, bias: Tensor, gathered: Tensor, eps: float
) -> list[Tensor]:
    told = [gathered.new_empty(gathered.shape[-1]) for _ in range(2 * len(batches))]
    return [*(torch.empty_like(x) for x in batches), *told]


def _fake_sums(
    gradients: list[Tensor],
    batches: list[Tensor],
    weight: Tensor,
    means: list[Tensor],
    inv_stds: list[Tensor],
) -> list[Tensor]:
    sums = means[0].new_empty(len(batches) * 2 * len(means[0]))
    return [sums, torch.empty_like(weight), torch.empty_like(weight)]


def _same_layout(tensor: Tensor, like: Tensor) -> Tensor:
    """The kernels take two tensors for laid out alike without looking."""
    last = like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last)
    return tensor.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@opaque(
    lambda batches, eps: batches[0].new_empty(
        len(batches) * 2 * batches[0].shape[1], dtype=wide(batches[0].dtype)
    )
)
def cuda_statistics(batches: list[Tensor], eps: float) -> Tensor:
    """Mean and 1/sqrt(var + eps) of this rank's rows of each x, one behind the other."""
    return torch.cat([part for x in batches for part in torch.batch_norm_stats(x, eps)])


@opaque(_fake_normalised)
def cuda_normalised(
    batches: list[Tensor], weight: Tensor, bias: Tensor, gathered: Tensor, eps: float
) -> list[Tensor]:
    """From what each rank found, (ranks, 2 batches, features): each y, the means and the 1/std of all."""
    together, parts = [], gathered.unbind(1)
    for x, mean, inv_std in zip(batches, parts[::2], parts[1::2], strict=True):
        counts = _constant(x.numel() // x.shape[1], len(mean), mean.dtype, mean.device)
        # The first argument tells the type alone.
        together.append(
            torch.batch_norm_gather_stats_with_counts(mean, mean, inv_std, None, None, 0.0, eps, counts)
        )
    normalised = [
        torch.batch_norm_elemt(x, weight, bias, *both, eps) for x, both in zip(batches, together, strict=True)
    ]
    means, inv_stds = zip(*together, strict=True)
    return [*normalised, *means, *inv_stds]


@opaque(_fake_sums)
def cuda_sums(
    gradients: list[Tensor],
    batches: list[Tensor],
    weight: Tensor,
    means: list[Tensor],
    inv_stds: list[Tensor],
) -> list[Tensor]:
    """Of this rank's rows: sum(dy) and sum(dy (x - mean)) of each x, one behind the other, dw and db."""
    found = [
        torch.batch_norm_backward_reduce(dy, x, mean, inv_std, weight, True, True, True)
        for dy, x, mean, inv_std in zip(gradients, batches, means, inv_stds, strict=True)
    ]
    sums = torch.cat([part for both in found for part in both[:2]])
    of_weights: tuple[Tensor, ...] = found[0][2:]
    for both in found[1:]:
        of_weights = torch._foreach_add(of_weights, both[2:])
    return [sums, *of_weights]


@opaque(lambda gradients, batches, *_: [torch.empty_like(x) for x in batches])
def cuda_gradients(
    gradients: list[Tensor],
    batches: list[Tensor],
    weight: Tensor,
    means: list[Tensor],
    inv_stds: list[Tensor],
    gathered: Tensor,
) -> list[Tensor]:
    """dx of each x, from what each rank summed, (ranks, 2 batches, features)."""
    found, sums = [], gathered.sum(0).unbind(0)
    for dy, x, mean, inv_std, sum_dy, sum_dy_x in zip(
        gradients, batches, means, inv_stds, sums[::2], sums[1::2], strict=True
    ):
        count = len(gathered) * x.numel() // x.shape[1]
        counts = _constant(count, 1, torch.int32, x.device)
        backward = torch.ops.aten.batch_norm_backward_elemt  # torch's stub of it lacks the last argument
        found.append(backward(dy, x, mean, inv_std, weight, sum_dy, sum_dy_x, counts))
    return found


class _Normalise(Function):
    """y of each x, where mean and std depend on every rank's x."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, eps: float, group: dist.ProcessGroup, *given: Tensor
    ) -> tuple[Tensor, ...]:
        batches = [_same_layout(x, x) for x in given]
        gathered = gather(cuda_statistics(batches, eps), group, 2 * len(batches), len(weight))
        found = cuda_normalised(batches, weight, bias, gathered, eps)
        ctx.group, n = group, len(batches)
        ctx.save_for_backward(weight, *batches, *found[n:])
        return tuple(found[:n])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        n = len(gradients)
        weight, *saved = ctx.saved_tensors
        batches, means, inv_stds = saved[:n], saved[n : 2 * n], saved[2 * n :]
        dys = [_same_layout(dy, x) for dy, x in zip(gradients, batches, strict=True)]
        own, dweight, dbias = cuda_sums(dys, batches, weight, means, inv_stds)
        gathered = gather(own, ctx.group, 2 * n, len(weight))
        return (
            *(dweight, dbias, None, None),
            *cuda_gradients(dys, batches, weight, means, inv_stds, gathered),
        )
