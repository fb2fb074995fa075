"""Gradients summed in an order that follows from the ranks alone: the same bits on whichever nodes they run.

NCCL's all-reduce adds in the order of its ring or tree, which follows the topology: eight GPUs of one node
and of two add otherwise. Here each rank sums one part of all ranks' gradients, and the parts are gathered: as
many bytes as a ring sends. Two numbers have one sum, and gloo's order is that of the ranks: no need there.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.futures import Future
from torch.nn import functional

from dcgan_dist.gan.exchange import all_gather_single


def needed(group: dist.ProcessGroup) -> bool:
    """Whether the sums of `group` would be taken in an order that follows the topology."""
    return dist.get_backend(group) == "nccl" and group.size() > 2


class Ordered:
    """The hook's stream of its own, so that neither sums nor the backward pass wait for the other."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.stream: torch.cuda.Stream | None = None

    def side(self, device: torch.device) -> torch.cuda.Stream:
        if self.stream is None:
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self.stream


def mean_of_bucket(ordered: Ordered, bucket: GradBucket) -> Future[Tensor]:
    """DDP's hook, which its backward pass calls for each piece of the gradients."""
    gradients = bucket.buffer()
    if not gradients.is_cuda:
        done: Future[Tensor] = Future()
        done.set_result(mean_in_order(gradients, ordered.group))
        return done
    side = ordered.side(gradients.device)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        done = Future(devices=[gradients.device])
        done.set_result(mean_in_order(gradients, ordered.group))  # to be waited for on this stream
    return done


def mean_in_order(values: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The mean over ranks of (n,), in place."""
    ranks, n = group.size(), len(values)
    padded = functional.pad(values, (0, -n % ranks)) if n % ranks else values
    of_ranks = torch.empty_like(padded)
    dist.all_to_all_single(of_ranks, padded, group=group)
    part = of_ranks.view(ranks, -1).sum(0).div_(ranks)
    all_gather_single(padded, part, group=group)
    if padded is not values:
        values.copy_(padded[:n])
    return values


@torch.no_grad()
def mean_of_gradients(net: nn.Module, group: dist.ProcessGroup) -> None:
    """The gradients of `net`, in place, without DDP: what a CUDA graph can hold."""
    gradients = [weight.grad for weight in net.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    mean_in_order(flat, group)
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, mean in zip(gradients, torch.split(flat, sizes), strict=True):
        gradient.copy_(mean.view(gradient.shape))
