"""Batch norm over the global batch, on CPU and GPU alike (Ioffe and Szegedy 2015; paper, section 3).

Statistics are those of the one batch given, summed over the ranks of `group`: a real and a fake batch never
mix. With uniform ranks, n images each, mean = sum_r(mean_r)/W and var = sum_r(var_r + mean_r^2)/W - mean^2,
summed in float64 so that the subtraction costs nothing. Convolutions may run in half precision; this never
does.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional


class BatchNorm(nn.Module):
    """Normalises dimension 1 of (n, features) or (n, channels, h, w).

    In training it uses the batch's own statistics and keeps no running mean, as the authors do. In
    evaluation it uses frozen ones, which `calibrate` sets.
    """

    running_mean: Tensor | None
    running_var: Tensor | None

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, features: int, *, eps: float, affine: bool = True) -> None:
        super().__init__()
        self.features = features
        # Without gain and bias: the paper's MNIST networks.
        self.register_parameter("weight", nn.Parameter(torch.ones(features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(features)) if affine else None)
        self.eps = eps
        self.group: dist.ProcessGroup | None = None
        self.register_buffer("running_mean", None)
        self.register_buffer("running_var", None)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            if self.running_mean is None:
                raise RuntimeError("this batch norm has no frozen statistics; calibrate the network first")
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if self.group is None:
            return functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        mean, var = self.statistics(x)
        gain, bias = self._gain_and_bias(x)
        normalised: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, gain, bias, mean, var, self.eps, self.group
        )
        return normalised

    def _gain_and_bias(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.weight is not None and self.bias is not None:
            return self.weight, self.bias
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        ones = torch.ones(self.features, dtype=wide, device=x.device)
        return ones, torch.zeros_like(ones)

    @torch.no_grad()
    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the global batch, (features,) each, in the parameters' type."""
        mean, var = _local_statistics(x, like=self._gain_and_bias(x)[0])
        if self.group is None:
            return mean, var
        ranks = self.group.size()
        moments = torch.stack((mean.double(), var.double() + mean.double() ** 2))
        dist.all_reduce(moments, group=self.group)
        moments /= ranks
        return moments[0].to(mean.dtype), (moments[1] - moments[0] ** 2).clamp_(min=0).to(var.dtype)


def _local_statistics(x: Tensor, *, like: Tensor) -> tuple[Tensor, Tensor]:
    # Handing over buffers in the parameters' type makes the kernel accumulate and answer in that type.
    buffers = torch.zeros_like(like), torch.ones_like(like)
    mean, var = torch.batch_norm_update_stats(x, *buffers, 1.0)
    return mean, var


class _Normalise(Function):
    """y = w (x - mean)/sqrt(var + eps) + b, where mean and var depend on every rank's x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        eps: float,
        group: dist.ProcessGroup,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.group = eps, group
        return functional.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        # With statistics held fixed: dx = w dy / std, and the sums over this rank's images.
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack((dbias, dweight))  # sum(dy), sum(dy x_hat)
        dist.all_reduce(sums, group=ctx.group)
        count = x.numel() // x.shape[1] * ctx.group.size()
        # The statistics' own dependence on x: dx -= w/std (mean(dy) + x_hat mean(dy x_hat)).
        inv_std = (var + ctx.eps).rsqrt()
        slope = weight * inv_std * sums[1] / count * inv_std
        offset = weight * inv_std * sums[0] / count - slope * mean
        zeros, ones = torch.zeros_like(mean), torch.ones_like(var)
        dx -= functional.batch_norm(x, zeros, ones, slope, offset, eps=0.0)
        return dx, dweight, dbias, None, None, None, None


def synchronise(net: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Make every batch norm of `net` take its statistics over all ranks of `group`."""
    for module in net.modules():
        if isinstance(module, BatchNorm):
            module.group = group
