"""How many operations a step hands to a GPU, which is what bounds it where each rank has few images: counted
below autograd, on the way that CUDA takes, with ranks that are there in name only.
"""

from collections import Counter
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.model import OPERATIONS
from dcgan_dist.config.settings import Config, Data, Model, Train
from dcgan_dist.ranks.world import World
from dcgan_dist.training import players
from dcgan_dist.training.trainer import Trainer
from tests.gan.cuda_kernels import as_on_cuda
from tests.processes import run_ranks

NARROW = "z100 k5 g 64@4 32@8 16@16 8@32 3@64 d 8@32 16@16 32@8 64@4"
"""The paper's layers, with fewer maps, which are as many operations: a CPU may be slow at bfloat16."""


class Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def counted(ranks: int) -> list[Counter[str]]:
    """The operations of a step of the paper's G and of one of its D, but for the sums of gradients."""
    group = None
    if ranks > 1:
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)  # type: ignore[no-untyped-call]
        group = dist.group.WORLD
    config = Config(
        data=Data(batch_images=2 * ranks), model=Model(net=NARROW), train=Train(precision="bfloat16")
    )
    here = World(rank=0, ranks=ranks, device=torch.device("cpu"), group=group)
    with as_on_cuda(), patch.multiple(players, DistributedDataParallel=alone, _settle=lambda *_: None):
        trainer = Trainer(config, here)
        real = torch.zeros(2, 64, 64, 3).permute(0, 3, 1, 2)
        found = []
        for step in range(4):
            with Count() as count:
                trainer.update(step, real if step % 2 else None)
            found.append(count.seen)
        return found[2:]


def alone(net: nn.Module, **_: Any) -> nn.Module:
    return net


@pytest.mark.parametrize(("ranks", "which"), [(1, "alone"), (8, "together")])
def test_a_step_stays_within_its_budget(ranks: int, which: str) -> None:
    """The budget is what docs/scaling.md is computed from; releases of torch may need less."""
    (found,) = run_ranks(counted, 1, ranks)
    for seen, most in zip(found, OPERATIONS[which], strict=True):
        assert 0.9 * most < seen.total() <= most, seen.most_common()
    if ranks > 1:  # a layer and direction: one gather and four kernels beside the network's own
        assert [seen["_allgather_base_"] for seen in found] == [14, 10]
        assert not any(seen["allgather_"] for seen in found)
