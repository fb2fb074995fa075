"""What batch norms of several ranks tell each other, and kernels that torch.compile must not look into."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

# Never the one that takes a list: NCCL gathers into one tensor and copies every rank's part out of it.
all_gather_single = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # new in torch 2.13
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def gather(own: Tensor, group: dist.ProcessGroup, *shape: int) -> Tensor:
    """(...) of every rank -> (ranks, ...), by rank, each in `shape` if given.

    It is one round of messages, where a sum over ranks takes two.
    """
    flat = own if own.dim() == 1 else own.reshape(-1)
    found = flat.new_empty(group.size() * len(flat))
    all_gather_single(found, flat, group=group)
    return found.view(group.size(), *(shape or own.shape))


def opaque(fake: Callable[..., Any]) -> Callable[[Kernel], Kernel]:
    """A kernel that torch.compile calls as it stands, knowing of its answers only what `fake` says.

    Some of torch's kernels write where their schema says that they do not, or have no shapes that can be
    known beforehand. Outside of torch.compile the function is called directly.
    """

    def wrap(kernel: Kernel) -> Kernel:
        op = torch.library.custom_op(f"dcgan_dist::{kernel.__name__}", kernel, mutates_args=())
        op.register_fake(fake)

        def call(*args: Any) -> Any:
            return op(*args) if torch.compiler.is_compiling() else kernel(*args)

        return call  # type: ignore[return-value]

    return wrap
