"""Stand-ins on a CPU for the batch norm kernels that only CUDA has, which refuse what CUDA's refuse (torch,
aten/src/ATen/native/cuda/Normalization.cu), and a guard over whole steps.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dcgan_dist.gan import batchnorm_cuda, convolution

CALLS: Counter[str] = Counter()
"""How often each stand-in was called in this process."""


def wide(x: Tensor) -> Tensor:
    return x.double() if x.dtype == torch.float64 else x.float()


def by_map(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]


def spread(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))


def demand_statistics(x: Tensor, *statistics: Tensor) -> None:
    for found in statistics:
        assert found.dtype == wide(x[:0]).dtype, "statistics are in the type that sums are kept in"
        assert found.shape == (x.shape[1],)
        assert found.is_contiguous(), "or the slow kernels are taken"


def demand_layout(x: Tensor) -> None:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    assert last or x.is_contiguous(), "no kernel for these strides"


def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    CALLS["stats"] += 1
    demand_layout(x)
    var, mean = torch.var_mean(wide(x), by_map(x), correction=0)
    return mean, (var + eps).rsqrt()


def gather_stats(
    like: Tensor,
    mean: Tensor,
    inv_std: Tensor,
    running_mean: None,
    running_var: None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    CALLS["gather_stats"] += 1
    assert like.dtype == mean.dtype == inv_std.dtype == counts.dtype == wide(like[:0]).dtype
    assert mean.shape == inv_std.shape
    assert counts.shape == mean.shape[:1]
    total, m, squares = counts[0], mean[0], (inv_std[0] ** -2 - eps) * counts[0]
    for n, other, inv in zip(counts[1:], mean[1:], inv_std[1:], strict=True):
        apart = other - m
        m = m + apart * n / (total + n)
        squares = squares + (inv**-2 - eps) * n + apart**2 * total * n / (total + n)
        total = total + n
    return m.clone(), (squares / total + eps).rsqrt()


def elemt(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inv_std: Tensor, eps: float) -> Tensor:
    CALLS["elemt"] += 1
    demand_layout(x)
    demand_statistics(x, mean, inv_std)
    w, b, m, i = (spread(t, x) for t in (weight, bias, mean, inv_std))
    return (w * (wide(x) - m) * i + b).to(x.dtype)


def backward_reduce(
    dy: Tensor, x: Tensor, mean: Tensor, inv_std: Tensor, weight: Tensor, *wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    CALLS["backward_reduce"] += 1
    assert wanted == (True, True, True)
    demand_pair(dy, x)
    demand_statistics(x, mean, inv_std)
    dbias = wide(dy).sum(by_map(x))
    dot = (wide(dy) * (wide(x) - spread(mean, x))).sum(by_map(x))
    return dbias, dot, (dot * inv_std).to(weight.dtype), dbias.to(weight.dtype, copy=True)


def backward_elemt(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    inv_std: Tensor,
    weight: Tensor,
    sum_dy: Tensor,
    sum_dy_xmu: Tensor,
    counts: Tensor,
) -> Tensor:
    CALLS["backward_elemt"] += 1
    demand_pair(dy, x)
    demand_statistics(x, mean, inv_std, sum_dy, sum_dy_xmu)
    assert counts.dtype == torch.int32
    n = int(counts.sum())
    m, i, w, s, t = (spread(v, x) for v in (mean, inv_std, weight, sum_dy, sum_dy_xmu))
    return ((wide(dy) - s / n - (wide(x) - m) * i**2 * t / n) * w * i).to(x.dtype)


def demand_pair(dy: Tensor, x: Tensor) -> None:
    demand_layout(dy)
    assert dy.stride() == x.stride(), "the kernels look at the strides of one of the two"
    assert dy.dtype == x.dtype


KERNELS = {
    "batch_norm_stats": stats,
    "batch_norm_gather_stats_with_counts": gather_stats,
    "batch_norm_elemt": elemt,
    "batch_norm_backward_reduce": backward_reduce,
    "batch_norm_backward_elemt": backward_elemt,
}
_library: list[torch.library.Library] = []


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Batch norms, and convolutions, of several ranks go CUDA's way in the block, on CPU tensors."""
    if not _library:
        _library.append(torch.library.Library("aten", "IMPL"))
        for name, kernel in KERNELS.items():
            _library[0].impl(name, kernel, "CPU")
    with (
        patch.object(batchnorm_cuda, "there_for", lambda x: True),
        patch.object(convolution, "_gains", lambda *_: False),
    ):
        yield


class CudaContract(TorchDispatchMode):
    """Refuses what CUDA's kernels refuse and the CPU's do not, and what is slow under NCCL."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("native_batch_norm_backward", "cudnn_batch_norm_backward"):
            assert isinstance(args[5], Tensor), "save_mean should always be defined"
            assert isinstance(args[6], Tensor), "save_invstd should always be defined"
        assert name != "allgather_", "NCCL copies every rank's part once more; all_gather_into_tensor"
        return func(*args, **(kwargs or {}))
