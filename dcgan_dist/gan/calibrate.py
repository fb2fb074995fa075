"""Freeze batch norm for analysis, the authors' way: the plain average, over batches, of each batch's mean
and biased variance, every batch weighing the same (their SVHN script). Upper layers see lower ones
normalised by batch statistics. No weight changes.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dcgan_dist.gan.batchnorm import BatchNorm

BATCHES, BATCH_IMAGES = 20, 128
"""What analyses freeze over."""
ON_NOISE = f"frozen over {BATCHES} batches of {BATCH_IMAGES} z"
"""The words for it, beside numbers."""


@torch.no_grad()
def calibrate(net: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set the frozen statistics of every batch norm of `net` from `batches`, and leave it in evaluation mode.

    Returns the number of batches, which belongs beside every number measured with them.
    """
    norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
    sums: dict[BatchNorm, list[Tensor]] = {}

    def collect(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, BatchNorm)
        mean, var = norm.statistics(inputs[0])
        total = sums.setdefault(norm, [torch.zeros_like(mean), torch.zeros_like(var)])
        total[0] += mean
        total[1] += var

    hooks = [norm.register_forward_pre_hook(collect) for norm in norms]
    count = 0
    try:
        net.train()
        for batch in batches:
            net(batch)
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise ValueError("calibrating batch norm needs at least one batch")
    for norm, (mean, var) in sums.items():
        norm.running_mean, norm.running_var = mean / count, var / count
    net.eval()
    return count
