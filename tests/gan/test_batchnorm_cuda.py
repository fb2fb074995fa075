"""The way that batch norms go on CUDA, on CPU tensors: stand-ins compute what its kernels do."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from dcgan_dist.config.settings import Config, Data, Model, Train
from dcgan_dist.gan.batchnorm import synchronise
from dcgan_dist.gan.description import PRESETS, parse_net
from dcgan_dist.ranks import world
from dcgan_dist.training.trainer import Trainer
from tests.gan.cuda_kernels import CALLS, CudaContract, as_on_cuda
from tests.gan.test_batchnorm import SHAPES, make_norm, whole
from tests.processes import run_ranks


def both_ways(shape: tuple[int, ...], dtype: torch.dtype, batches: int) -> list[list[Tensor]]:
    """Outputs and gradients of this rank, as on CPUs and as on CUDA."""
    with world.join(device="cpu", timeout_seconds=60) as here:
        found = [normalised(here, shape, dtype, batches)]
        with as_on_cuda(), CudaContract():
            found.append(normalised(here, shape, dtype, batches))
        assert (
            Counter(
                dict.fromkeys(
                    ("stats", "gather_stats", "elemt", "backward_reduce", "backward_elemt"), batches
                )
            )
            == CALLS
        )
        return found


def normalised(here: world.World, shape: tuple[int, ...], dtype: torch.dtype, batches: int) -> list[Tensor]:
    x, dy = (part.chunk(here.ranks)[here.rank].clone() for part in whole(shape, dtype))
    norm = make_norm(torch.float64 if dtype == torch.float64 else torch.float32)
    synchronise(norm, here.group)
    xs = [(x * (i + 1)).requires_grad_() for i in range(batches)]
    # Gradients come laid out otherwise than the maps, as they may.
    dys = [
        (dy + i).to(memory_format=torch.channels_last) if dy.dim() == 4 else dy + i for i in range(batches)
    ]
    ys = norm.apart(xs)
    torch.autograd.backward(list(ys), dys)
    found = [*ys, *(x.grad for x in xs), norm.weight.grad, norm.bias.grad]
    return [tensor.detach().clone() for tensor in found if tensor is not None]


LARGE = ("dcgan64", "imagenet32", "small32")
"""Nets whose contracts are the small ones', for seconds each."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("ranks", "batches"), [(1, 1), (2, 2), pytest.param(4, 1, marks=pytest.mark.slow)])
def test_cudas_way_is_the_cpus_in_float64(shape: tuple[int, ...], ranks: int, batches: int) -> None:
    for cpu, cuda in run_ranks(both_ways, ranks, shape, torch.float64, batches):
        assert len(cpu) == len(cuda) == 2 * batches + 2
        for expected, found in zip(cpu, cuda, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05), (torch.float16, 0.01)]
)
def test_cudas_way_is_the_cpus_within_rounding(dtype: torch.dtype, close: float) -> None:
    for cpu, cuda in run_ranks(both_ways, 2, SHAPES[1], dtype, 1):
        for expected, found in zip(cpu, cuda, strict=True):
            assert found.dtype == expected.dtype
            torch.testing.assert_close(found, expected, rtol=close, atol=close)


def a_step(net: str, precision: str, rule: str) -> tuple[Counter[str], float]:
    """What the batch norms of one step of each network called on this rank, and D's loss."""
    size = parse_net(net).image_size
    with world.join(device="cpu", timeout_seconds=60) as here, as_on_cuda():
        config = Config(
            data=Data(batch_images=4),
            model=Model(net=net),
            train=Train(update_rule=rule, precision=precision, ema_decay=0.9),  # type: ignore[arg-type]
        )
        trainer = Trainer(config, here)
        CALLS.clear()
        real = torch.rand(2, size, size, 3, dtype=trainer.dtype).permute(0, 3, 1, 2)
        with CudaContract():
            for step in range(1 if rule == "both" else 2):
                trainer.update(step, real)
        return CALLS.copy(), trainer.metrics(2)["loss/d"]


@pytest.mark.parametrize(
    ("net", "precision", "rule"),
    [
        *(
            pytest.param(net, "bfloat16", "alternate", marks=[pytest.mark.slow] * (net in LARGE))
            for net in PRESETS
        ),
        *(("tiny16", precision, "both") for precision in ("float32", "float64", "bfloat16", "float16")),
    ],
)
def test_a_step_of_every_net_and_precision_keeps_cudas_contracts(net: str, precision: str, rule: str) -> None:
    described = parse_net(net)
    g, d = len(described.g) - 1, len(described.d) - 1
    # Forwards: G for each player or once for both, D on real and fake, D for G.
    forwards = (g if rule == "both" else 2 * g) + 3 * d
    backwards = g + 3 * d
    for calls, loss in run_ranks(a_step, 2, net, precision, rule):
        assert calls["stats"] == calls["gather_stats"] == calls["elemt"] == forwards
        assert calls["backward_reduce"] == calls["backward_elemt"] == backwards
        assert 0 < loss < 10
