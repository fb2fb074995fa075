"""The appendix: conditional networks and the nearest neighbour among their samples."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dcgan_dist.probe import mnist
from dcgan_dist.probe.__main__ import main
from dcgan_dist.probe.conditional import NETWORKS, ConditionalDiscriminator, ConditionalGenerator
from dcgan_dist.probe.mnist import Digits as Set
from dcgan_dist.ranks.world import World
from shards.building.build import build
from shards.sources.published.digits import Digits
from tests.processes import run_ranks

ALONE = World.alone()


def count(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def test_the_networks_have_as_many_weights_as_the_authors() -> None:
    assert count(ConditionalGenerator(28, 10)) == 6_820_538
    assert count(ConditionalDiscriminator(28, 10)) == 6_688_202


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_class_reaches_every_layer_and_comes_out_again(kind: str) -> None:
    torch.manual_seed(0)
    g, d = (build(8, 3, (16, 8, 8)) for build in NETWORKS[kind])
    z = torch.cat([torch.rand(6, 100), torch.eye(3)[[0, 1, 2, 0, 1, 2]]], dim=1)
    drawn = g(z)
    assert drawn.shape == (6, 4, 8, 8)
    assert drawn[:, 0].min() >= 0
    assert drawn[:, 0].max() <= 1
    assert drawn[:, 1:].mean((2, 3)).tolist() == z[:, 100:].tolist()
    assert d(drawn).shape == (6,)
    inputs: list[Tensor] = []
    for net in (g, d):
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    d(g(z))
    for h in inputs:
        classes = h[:, -3:] if h.dim() == 2 or h.shape[1] != 4 else h[:, 1:]
        shown = classes.mean((2, 3)) if classes.dim() == 4 else classes
        assert torch.equal(shown, z[:, 100:])


class Prototypes(nn.Module):
    """A generator that draws each class's own picture."""

    def forward(self, z: Tensor) -> Tensor:
        one_hot = z[:, 100:]
        pixels = one_hot.argmax(1).float().view(-1, 1, 1, 1).expand(-1, 1, 4, 4) / 10
        return torch.cat([pixels, one_hot[:, :, None, None].expand(-1, -1, 4, 4)], dim=1)


def test_perfect_samples_are_without_error_at_any_number() -> None:
    labels = np.arange(10).repeat(3)
    images = np.broadcast_to(labels[:, None, None] / np.float32(10), (30, 4, 4)).astype(np.float32).copy()
    found = mnist.nearest_errors(
        Prototypes(), Set(images, labels, images, labels, 10), ALONE, samples=(500, 1500), seed=1
    )
    assert found == {1000: 0.0, 2000: 0.0}


def arguments(folder: Path) -> list[str]:
    for split in ("train", "test"):
        build(Digits(split), str(folder / split), size=8, workers=1)
    sets = ["--data", str(folder / "train"), "--test", str(folder / "test")]
    small = ["--epochs", "2", "--widths", "16,8,8", "--samples", "1000,2000", "--device", "cpu"]
    return ["mnist", str(folder / "run"), *sets, *small]


def errors_in(folder: Path) -> dict[tuple[str, int], float]:
    results = json.loads((folder / "run" / "probe" / "mnist.json").read_text())["results"]
    return {(result["method"], result["known"]): result["error"] for result in results}


def test_the_command_measures_both_and_their_controls(tmp_path: Path) -> None:
    assert main(arguments(tmp_path)) == 0
    errors = errors_in(tmp_path)
    assert errors["real", 1097] == 1.25
    assert errors["real, labels shuffled", 1097] == pytest.approx(90, abs=5)
    assert {("dcgan", 1000), ("dcgan", 2000), ("mlp", 1000), ("mlp", 2000)} <= errors.keys()


@pytest.mark.slow
def test_two_ranks_train_and_draw_what_one_does(tmp_path: Path) -> None:
    words = arguments(tmp_path)
    assert main(words) == 0
    alone = errors_in(tmp_path)
    assert run_ranks(main, 2, words) == [0, 0]
    assert errors_in(tmp_path) == pytest.approx(alone, abs=3)
