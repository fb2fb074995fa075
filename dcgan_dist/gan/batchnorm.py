"""Batch norm over the global batch, on CPU and GPU alike (Ioffe and Szegedy 2015; paper, section 3).

Statistics are those of the one batch given, summed over the ranks of `group`: a real and a fake batch never
mix. With uniform ranks, n images each, mean = sum_r(mean_r)/W and var = sum_r(var_r + mean_r^2)/W - mean^2,
summed in float64 so that the subtraction costs nothing. Convolutions may run in half precision; this never
does.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from dcgan_dist.gan import batchnorm_cuda
from dcgan_dist.gan.batchnorm_cuda import wide
from dcgan_dist.gan.exchange import gather, opaque


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
        return self.apart([x])[0]

    def apart(self, batches: Sequence[Tensor]) -> Sequence[Tensor]:
        """Each batch by its own statistics, as if given alone; the ranks exchange the sums of all at once."""
        if self.training and self.group is not None:
            gain, bias = self._gain_and_bias(batches[0])
            if batchnorm_cuda.there_for(batches[0]):
                return batchnorm_cuda.normalise(gain, bias, self.eps, self.group, batches)
            mean, var = self._moments(batches)
            normalised: tuple[Tensor, ...] = _Normalise.apply(  # type: ignore[no-untyped-call]
                gain, bias, mean, var, self.eps, self.group, *batches
            )
            return normalised
        if not self.training and self.running_mean is None:
            raise RuntimeError("this batch norm has no frozen statistics; calibrate the network first")
        frozen = (None, None) if self.training else (self.running_mean, self.running_var)
        return [
            functional.batch_norm(x, *frozen, self.weight, self.bias, training=self.training, eps=self.eps)
            for x in batches
        ]

    def _gain_and_bias(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.weight is not None and self.bias is not None:
            return self.weight, self.bias
        ones = torch.ones(self.features, dtype=wide(x.dtype), device=x.device)
        return ones, torch.zeros_like(ones)

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the global batch, (features,) each, in the parameters' type."""
        mean, var = self._moments([x])
        return mean[0], var[0]

    @torch.no_grad()
    def _moments(self, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of each global batch, (batches, features) each."""
        found = torch.stack([local_statistics(x) for x in batches], dim=1)
        if self.group is None:
            return found[0], found[1]
        mean, var = found.double()
        mean, square = gather(torch.stack((mean, var + mean**2)), self.group).mean(0)
        return mean.to(found.dtype), (square - mean**2).clamp_(min=0).to(found.dtype)


@opaque(lambda x: x.new_empty((2, x.shape[1]), dtype=wide(x.dtype)))
def local_statistics(x: Tensor) -> Tensor:
    """Mean and biased variance of this rank's x, (2, features), in the type that sums are kept in."""
    if x.is_cuda:
        return torch.stack(torch.batch_norm_update_stats(x, None, None, 0.0))
    # Handing over buffers in that type makes a CPU's kernel accumulate and answer in it. It writes there and
    # does not say so, which is why torch.compile must not see them.
    zeros = x.new_zeros(x.shape[1], dtype=wide(x.dtype))
    return torch.stack(torch.batch_norm_update_stats(x, zeros, torch.ones_like(zeros), 1.0))


class _Normalise(Function):
    """y = w (x - mean)/sqrt(var + eps) + b for each x, where mean and var depend on every rank's x."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        eps: float,
        group: dist.ProcessGroup,
        *batches: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, mean, var, *batches)
        ctx.eps, ctx.group = eps, group
        return tuple(
            functional.batch_norm(x, m, v, weight, bias, eps=eps)
            for x, m, v in zip(batches, mean, var, strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, means, variances, *batches = ctx.saved_tensors
        # With statistics held fixed: dx = w dy / std, and the sums over this rank's images. The kernels take
        # what was saved of the forward pass as well; empty says nothing was, and CUDA's refuse None.
        none = means.new_empty(0)
        fixed = [
            torch.ops.aten.native_batch_norm_backward(
                dy, x, weight, mean, var, none, none, False, ctx.eps, [True, True, True]
            )
            for dy, x, mean, var in zip(gradients, batches, means, variances, strict=True)
        ]
        own = torch.stack([torch.stack((dbias, dweight)) for _, dweight, dbias in fixed])
        sums = gather(own, ctx.group).sum(0)  # for each batch: sum(dy), sum(dy x_hat)
        # The statistics' own dependence on x: dx -= w/std (mean(dy) + x_hat mean(dy x_hat)).
        zeros, ones = torch.zeros_like(weight), torch.ones_like(weight)
        for x, (dx, _, _), mean, var, (sum_dy, sum_dy_x) in zip(
            batches, fixed, means, variances, sums, strict=True
        ):
            count = x.numel() // x.shape[1] * ctx.group.size()
            inv_std = (var + ctx.eps).rsqrt()
            slope = weight * inv_std * sum_dy_x / count * inv_std
            offset = weight * inv_std * sum_dy / count - slope * mean
            dx -= functional.batch_norm(x, zeros, ones, slope, offset, eps=0.0)
        dbias, dweight = own.sum(0)
        return dweight, dbias, None, None, None, None, *(dx for dx, _, _ in fixed)


def synchronise(net: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Make every batch norm of `net` take its statistics over all ranks of `group`."""
    for module in net.modules():
        if isinstance(module, BatchNorm):
            module.group = group
