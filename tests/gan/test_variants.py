"""What the paper tried beside its recipe: each switch changes what it names and nothing else."""

from pathlib import Path

import pytest
import torch

from dcgan_dist import sample, train
from dcgan_dist.gan.batchnorm import BatchNorm
from dcgan_dist.gan.description import Variant, parse_net
from dcgan_dist.gan.model import Discriminator, Generator, build
from tests.test_promises import words


def nets(variant: Variant) -> tuple[Generator, Discriminator]:
    return build(parse_net("tiny16"), norm_eps=1e-8, seeds=(1, 2), variant=variant)


def norms(net: torch.nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if isinstance(module, BatchNorm)]


@pytest.mark.parametrize(
    ("norm", "in_g", "in_d"),
    [
        ("paper", ["project_norm", "norms.0"], ["norms.0"]),
        ("everywhere", ["project_norm", "norms.0", "last_norm"], ["first_norm", "norms.0"]),
        ("not_in_g", [], ["norms.0"]),
        ("nowhere", [], []),
    ],
)
def test_batch_norm_is_where_the_switch_says(norm: str, in_g: list[str], in_d: list[str]) -> None:
    g, d = nets(Variant(norm=norm))  # type: ignore[arg-type]
    assert (norms(g), norms(d)) == (in_g, in_d)


def test_a_pooled_head_reads_the_mean_of_each_map() -> None:
    _, d = nets(Variant(head="pooled"))
    images = torch.randn(3, 3, 16, 16)
    means = d.maps(images)[-1].mean((2, 3))
    torch.testing.assert_close(d(images), (means @ d.logit.weight.T)[:, 0])


def test_a_linear_output_leaves_the_range_of_tanh() -> None:
    z = torch.randn(64, 16)
    (bounded, _), (free, _) = nets(Variant()), nets(Variant(output="linear"))
    with torch.no_grad():
        for net in (bounded, free):
            net.convs[-1].weight.mul_(100)
        torch.testing.assert_close(torch.tanh(free(z)), bounded(z))
        assert free(z).abs().max() > 1


def test_activations_are_what_they_are_called() -> None:
    images = torch.randn(4, 3, 16, 16)
    relu, leaky, maxout = (nets(Variant(d_activation=kind))[1] for kind in ("relu", "leaky_relu", "maxout"))
    plain = leaky.convs[0](images)
    torch.testing.assert_close(leaky.maps(images)[0], torch.where(plain > 0, plain, 0.2 * plain))
    torch.testing.assert_close(relu.maps(images)[0], plain.clamp(min=0))
    pieces = maxout.convs[0](images)
    torch.testing.assert_close(maxout.maps(images)[0], torch.maximum(pieces[:, :8], pieces[:, 8:]))


@pytest.mark.parametrize("switch", ["norm=nowhere", "head=pooled", "output=linear", "d_activation=maxout"])
def test_a_variant_trains_and_is_drawn_from(rooms16: str, tmp_path: Path, switch: str) -> None:
    out = tmp_path / "run"
    assert train.main(words(rooms16, out, "--train.steps=2", f"--model.{switch}")) == 0
    assert sample.load(str(out)).sample(2).shape == (2, 3, 16, 16)
