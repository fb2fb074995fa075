"""A step hands its work to a GPU and never waits for it: on a device that has shapes and no numbers, all that
would need a number, mix devices, or copy between them while the host waits is seen.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from dcgan_dist.config.settings import Config, Data, Model, Train
from dcgan_dist.gan import batchnorm_cuda
from dcgan_dist.ranks.world import World
from dcgan_dist.training import players
from dcgan_dist.training.trainer import Trainer
from tests.processes import run_ranks

FUSED = "_get_fused_kernels_supported_devices"


class Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def is_autocast_enabled(self) -> bool:
        return False


class Copies(TorchDispatchMode):
    """Copies from one device to another, with the line of ours that asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_"):
            source, target = (args[0], answer) if name == "_to_copy" else (args[1], args[0])
            if source.device != target.device:
                ours = [f for f in traceback.extract_stack() if "dcgan_dist" in Path(f.filename).parts]
                self.found.append(f"{source.device} to {target.device} at {ours[-1].name}:{ours[-1].lineno}")
        return answer


def moved(net: nn.Module, change: Any, recurse: bool = True) -> nn.Module:
    """`nn.Module._apply`, which swaps tensors in place; those without numbers cannot be swapped."""
    for module in net.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(change(weight.detach()), weight.requires_grad)
    return net


@contextmanager
def device_without_numbers(kind: str) -> Iterator[torch.device]:
    _setup_privateuseone_for_python_backend(kind, backend_module=Backend())
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(patch.object(nn.Module, "_apply", moved))
        for name in ("torch.optim.optimizer", "torch.optim.adam"):
            if hasattr(sys.modules[name], FUSED):
                stack.enter_context(patch.object(sys.modules[name], FUSED, lambda: [kind, "cpu"]))
        yield torch.device(kind, 0)


def steps(rule: Any, precision: Any, ranks: int, slip: str) -> tuple[list[str], int]:
    """The copies of a few steps, and how many numbers they updated."""
    group = None
    if ranks > 1:
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)  # type: ignore[no-untyped-call]
        group = dist.group.WORLD
    train = Train(update_rule=rule, precision=precision, ema_decay=0.9)
    config = Config(data=Data(batch_images=4 * ranks), model=Model(net="tiny16"), train=train)
    with device_without_numbers("toy") as device, ExitStack() as stack:
        stack.enter_context(patch.object(players, "DistributedDataParallel", alone))
        stack.enter_context(patch.object(players, "_settle", lambda *_: None))
        # CUDA's own kernels of batch norm are known by the shapes they answer.
        stack.enter_context(patch.object(batchnorm_cuda, "there_for", lambda x: True))
        stack.enter_context(patch.object(torch.compiler, "is_compiling", lambda: True))
        trainer = Trainer(config, World(rank=0, ranks=ranks, device=device, group=group))
        if slip == "number":
            trainer.g.bare.register_forward_hook(lambda net, given, found: float(found.mean()) and None)
        elif slip == "copy":
            trainer.g.bare.register_forward_hook(
                lambda net, given, found: found + given[0].cpu().to(device).mean()
            )
        real = torch.empty(4, 16, 16, 3, device=device).permute(0, 3, 1, 2)
        with Copies() as copies:
            for step in range(4):
                trainer.update(step, real)
        updated = [
            p for net in (trainer.g.bare, trainer.d.bare) for p in net.parameters() if p.grad is not None
        ]
        assert all(p.device == device for p in updated)
        return copies.found, sum(p.numel() for p in updated)


def alone(net: nn.Module, **_: Any) -> nn.Module:
    return net


@pytest.mark.parametrize("ranks", [1, 8])
@pytest.mark.parametrize(("rule", "precision"), [("alternate", "float32"), ("both", "float64")])
def test_a_step_waits_for_no_number_and_no_copy(rule: str, precision: str, ranks: int) -> None:
    ((copies, updated),) = run_ranks(steps, 1, rule, precision, ranks, "")
    assert copies == []
    assert updated > 1000


def test_a_number_that_is_asked_for_is_seen() -> None:
    with pytest.raises(AssertionError, match="DataDependentOutputException"):
        run_ranks(steps, 1, "alternate", "float32", 1, "number")


def test_a_copy_is_seen() -> None:
    ((copies, _),) = run_ranks(steps, 1, "alternate", "float32", 1, "copy")
    assert copies
    assert "toy:0 to cpu" in copies[0]
