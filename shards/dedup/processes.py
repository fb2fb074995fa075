"""Several processes at one de-duplication, as torchrun starts them; one without it.

Sums are of whole numbers, so that their order does not matter. Kept out: what is summed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

WAIT = timedelta(days=2)
"""Ranks meet only between stages, and a stage reads the whole dataset."""


@dataclass(frozen=True)
class Ranks:
    """This process among `ranks`."""

    rank: int = 0
    ranks: int = 1

    def sum_(self, values: torch.Tensor) -> None:
        """Add up `values` over all ranks, in place; float64 that holds whole numbers."""
        assert values.dtype == torch.float64
        if self.ranks > 1:
            dist.all_reduce(values)

    def meet(self) -> None:
        """Wait until all ranks are here."""
        if self.ranks > 1:
            dist.barrier()


@contextmanager
def join() -> Iterator[Ranks]:
    """The ranks that torchrun started, over gloo."""
    if not dist.is_torchelastic_launched():
        yield Ranks()
        return
    dist.init_process_group("gloo", timeout=WAIT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
