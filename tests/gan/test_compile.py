"""torch.compile's front end, which Inductor uses too, against the eager step: gradients of several ranks."""

from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dcgan_dist.config.settings import Config, Data, Model, Train
from dcgan_dist.gan.batchnorm import synchronise
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.model import build
from dcgan_dist.ranks import world
from dcgan_dist.training.trainer import Trainer
from tests.gan.cuda_kernels import as_on_cuda
from tests.processes import run_ranks

BUCKETS = {"tiny16": (1, 1), "svhn32": (3, 2)}
"""Pieces at least, of G and of D."""


def gradients(run: Any, net: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    net.zero_grad(set_to_none=True)
    answers = run(*batches)
    answers = answers if isinstance(answers, tuple) else (answers,)
    # Weights by row: the gradient of a plain mean of normalised numbers is 0.
    rows = torch.linspace(0.5, 2, len(batches[0]), dtype=torch.float64)
    loss = sum(((answer**2).flatten(1).mean(1) if answer.dim() > 1 else answer) @ rows for answer in answers)
    loss.backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def some_steps(rule: Any, compiled: bool) -> list[Tensor]:
    """All weights of this rank after some updates, compiled or not."""
    with (
        world.join(device="cpu", timeout_seconds=100) as here,
        patch.object(torch, "compile", partial(torch.compile, backend="aot_eager")),
    ):
        train = Train(update_rule=rule, precision="float64", compile=compiled)
        trainer = Trainer(Config(data=Data(batch_images=8), model=Model(net="tiny16"), train=train), here)
        draw = torch.Generator().manual_seed(here.rank)
        for step in range(4):
            real = torch.rand(4, 16, 16, 3, generator=draw, dtype=torch.float64) * 2 - 1
            trainer.update(step, real.permute(0, 3, 1, 2))
        if compiled:
            assert {
                type(run).__name__ for p in (trainer.g, trainer.d) for run in (p.parallel, p.helping)
            } == {"OptimizedModule"}
        return [p.detach().clone() for net in (trainer.g.bare, trainer.d.bare) for p in net.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["alternate", "both"])
def test_compiled_updates_of_two_ranks_are_the_eager_ones(rule: str) -> None:
    eager, compiled = (run_ranks(some_steps, 2, rule, c, timeout=200) for c in (False, True))
    for found, expected in zip(compiled, eager, strict=True):
        for ours, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


def compiled_and_eager(
    net_text: str, bucket_mb: int, on_cuda: bool
) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    draw = torch.Generator().manual_seed(3)
    with world.join(device="cpu", timeout_seconds=100) as here, as_on_cuda() if on_cuda else nullcontext():
        found: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        described = parse_net(net_text)
        g, d = build(described, norm_eps=1e-8, seeds=(1, 2))
        shape = (8, 3, described.image_size, described.image_size)
        z = torch.randn(8, described.z_size, generator=draw, dtype=torch.float64)
        pictures = torch.randn(shape, generator=draw, dtype=torch.float64)
        for net, batches in ((g, [z]), (d, [pictures, pictures * 2 + 1])):
            net.double().to(memory_format=torch.channels_last)
            synchronise(net, here.group)
            parallel = DistributedDataParallel(net, gradient_as_bucket_view=True, bucket_cap_mb=bucket_mb)
            own = [batch.chunk(here.ranks)[here.rank].clone() for batch in batches]
            compiled = torch.compile(parallel, backend="aot_eager")
            gradients(compiled, net, own)  # the first pass compiles, the second must be right as well
            found.append((gradients(compiled, net, own), gradients(parallel, net, own)))
        return found


@pytest.mark.parametrize("on_cuda", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    ("net", "bucket_mb"), [("tiny16", 25), pytest.param("svhn32", 2, marks=pytest.mark.slow)]
)
def test_compiled_gradients_of_two_ranks_are_the_eager_ones(net: str, bucket_mb: int, on_cuda: bool) -> None:
    for networks in run_ranks(compiled_and_eager, 2, net, bucket_mb, on_cuda, timeout=200):
        for (compiled, eager), buckets in zip(networks, BUCKETS[net], strict=True):
            assert compiled.keys() == eager.keys()
            megabytes = sum(gradient.nbytes for gradient in eager.values()) / 2**20
            assert megabytes / bucket_mb > buckets - 1, "gradients go in as many pieces"
            for name, expected in eager.items():
                assert expected.abs().max() > 0
                torch.testing.assert_close(compiled[name], expected, rtol=1e-9, atol=1e-12, msg=name)
