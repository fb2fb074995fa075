"""Gradients of several ranks are the sum by rank, to the bit."""

import os
from unittest.mock import MagicMock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dcgan_dist.config.settings import Config, Model, Train
from dcgan_dist.gan.batchnorm import BatchNorm
from dcgan_dist.ranks import world
from dcgan_dist.training import players
from dcgan_dist.training.ordered_sum import Ordered, mean_in_order, mean_of_bucket
from tests.processes import run_ranks


def numbers(rank: int, n: int) -> Tensor:
    """Of many magnitudes, so that the order of a sum shows."""
    draw = torch.Generator().manual_seed(rank)
    return torch.randn(n, generator=draw) * 10 ** (torch.rand(n, generator=draw) * 6 - 3)


def by_rank(ranks: int, n: int) -> Tensor:
    total = numbers(0, n)
    for rank in range(1, ranks):
        total = total + numbers(rank, n)
    return total / ranks


def placed(n: int, places: list[int]) -> tuple[Tensor, Tensor]:
    """The mean on this process, which is rank `places[i]` where it was started as the i-th."""
    os.environ["RANK"] = str(places[int(os.environ["RANK"])])
    with world.join(device="cpu", timeout_seconds=60) as here:
        assert here.group is not None
        own = numbers(here.rank, n)
        found = mean_in_order(own, here.group)
        assert found is own
        return found, here.mean(numbers(here.rank, n))


@pytest.mark.parametrize("n", [1, 7, 4096, 4097])
@pytest.mark.parametrize("places", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_the_mean_is_that_of_the_sum_by_rank(n: int, places: list[int]) -> None:
    expected = by_rank(4, n)
    found = run_ranks(placed, 4, n, places)
    assert all(torch.equal(mean, expected) for mean, _ in found)
    for _, reduced in found:
        torch.testing.assert_close(reduced, expected)
    if n > 1000:
        assert not torch.equal(found[0][1], expected), "these numbers would show another order"


def learned() -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of two backward passes of a network in several pieces, and this rank's own ones."""
    with world.join(device="cpu", timeout_seconds=60) as here:
        assert here.group is not None
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Linear(37, 301), nn.ReLU(), nn.Linear(301, 1009), nn.ReLU(), nn.Linear(1009, 3)
        )
        x = numbers(here.rank, 5 * 37).view(5, 37)
        own = [p.clone() for p in torch.autograd.grad((net(x) ** 2).mean(), list(net.parameters()))]
        parallel = DistributedDataParallel(net, gradient_as_bucket_view=True, bucket_cap_mb=1)
        parallel.register_comm_hook(Ordered(here.group), mean_of_bucket)
        for _ in range(2):
            parallel.zero_grad(set_to_none=True)
            (parallel(x) ** 2).mean().backward()
        return [p.grad.clone() for p in net.parameters() if p.grad is not None], own


def test_a_networks_gradients_are_the_sums_by_rank() -> None:
    found = run_ranks(learned, 4)
    expected = []
    for own in zip(*(own for _, own in found), strict=True):
        total = own[0]
        for other in own[1:]:
            total = total + other
        expected.append(total / 4)
    for gradients, _ in found:
        assert len(gradients) == len(expected) == 6
        assert all(
            torch.equal(gradient, wanted) for gradient, wanted in zip(gradients, expected, strict=True)
        )


@pytest.mark.parametrize(
    ("backend", "ranks", "deterministic", "ordered"),
    [("nccl", 4, True, 2), ("nccl", 4, False, 0), ("nccl", 2, True, 0), ("gloo", 4, True, 0)],
)
def test_where_the_order_would_follow_the_topology(
    backend: str, ranks: int, deterministic: bool, ordered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = MagicMock()
    group.size.return_value = ranks
    monkeypatch.setattr(dist, "get_backend", lambda _: backend)
    made, own = MagicMock(), MagicMock(spec=dist.ProcessGroup)
    monkeypatch.setattr(dist, "new_group", lambda **_: own)
    monkeypatch.setattr(players, "DistributedDataParallel", made)
    config = Config(model=Model(net="tiny16"), train=Train(deterministic=deterministic, precision="float32"))
    here = world.World(rank=0, ranks=ranks, device=torch.device("cpu"), group=group)
    monkeypatch.setattr(players, "_settle", lambda *_: None)
    g, d = players.make_players(config, here)
    assert made.return_value.register_comm_hook.call_count == ordered
    groups = {m.group for net in (g.bare, d.bare) for m in net.modules() if isinstance(m, BatchNorm)}
    assert groups == {own if backend == "nccl" else group}, "batch norm's sums do not stand behind gradients"
