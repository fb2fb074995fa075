"""The recipe of the paper, held fact by fact (paper, sections 3 and 4; the authors' released code)."""

import math

import pytest
import torch
from torch import nn

from dcgan_dist.config.settings import Config, Model, Train
from dcgan_dist.gan.batchnorm import BatchNorm
from dcgan_dist.gan.description import NetError, parse_net
from dcgan_dist.gan.model import Discriminator, Generator, build
from dcgan_dist.gan.noise import draw_noise
from dcgan_dist.gan.step import means, update_both, update_d, update_g
from dcgan_dist.ranks.world import World
from dcgan_dist.training.players import make_players
from dcgan_dist.training.trainer import Trainer

ALONE = World.alone()
FLOAT32 = Train(precision="float32")


def nets(name: str = "tiny16") -> tuple[Generator, Discriminator]:
    return build(parse_net(name), norm_eps=1e-8, seeds=(1, 2))


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("preset", "g", "d"),
    [
        ("dcgan64", 18_885_760, 17_232_768),
        ("imagenet32", 6_690_688, 4_586_112),
        ("svhn32", 1_446_976, 1_033_664),
    ],
)
def test_parameter_counts_are_those_of_the_authors_networks(preset: str, g: int, d: int) -> None:
    with torch.device("meta"):
        net = parse_net(preset)
        assert parameters(Generator(net, norm_eps=1e-8)) == g
        assert parameters(Discriminator(net, norm_eps=1e-8)) == d


@pytest.mark.parametrize("preset", ["dcgan64", "imagenet32", "svhn32", "small32", "tiny16"])
def test_pictures_come_out_at_the_described_size_and_logits_one_each(preset: str) -> None:
    g, d = nets(preset)
    z = draw_noise(2, g.net.z_size, kind="uniform", seed=0)
    with torch.no_grad():
        pictures = g(z)
        assert pictures.shape == (2, 3, g.net.image_size, g.net.image_size)
        assert pictures.abs().max() <= 1
        assert d(pictures).shape == (2,)


def test_there_is_no_bias_but_batch_norms() -> None:
    for net in nets():
        biased = [name for name, _ in net.named_parameters() if name.endswith("bias")]
        assert biased
        assert all("norm" in name for name in biased)


def test_batch_norm_is_absent_at_the_input_of_d_and_the_output_of_g() -> None:
    g, d = nets()
    assert len(g.norms) == len(g.convs) - 1
    assert len(d.norms) == len(d.convs) - 1
    assert d.norms[0].weight.shape == (d.net.d[1].channels,)


def test_the_projection_is_normalised_per_unit() -> None:
    g, _ = nets("dcgan64")
    assert g.project_norm.weight.shape == (16384,)


def test_weights_start_with_the_papers_spread() -> None:
    g, d = nets("svhn32")
    for net in (g, d):
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
                assert abs(module.weight.mean().item()) < 0.002
            elif isinstance(module, BatchNorm):
                assert module.weight.mean().item() == pytest.approx(1, abs=0.01)
                assert not module.bias.any()


def test_alternate_updates_g_on_even_steps_and_d_on_odd_ones() -> None:
    trainer = Trainer(Config(model=Model(net="tiny16"), train=FLOAT32), ALONE)
    real = torch.rand(128, 3, 16, 16) * 2 - 1
    changed = []
    for step in range(4):
        before = [p.detach().clone() for p in (trainer.g.bare.project.weight, trainer.d.bare.logit.weight)]
        trainer.update(step, real)
        after = trainer.g.bare.project.weight, trainer.d.bare.logit.weight
        changed.append(tuple(not torch.equal(b, a) for b, a in zip(before, after, strict=True)))
    assert changed == [(True, False), (False, True)] * 2


def test_both_updates_each_network_once_a_step() -> None:
    config = Config(model=Model(net="tiny16"), train=Train(update_rule="both", precision="float32"))
    trainer = Trainer(config, ALONE)
    trainer.update(0, torch.rand(128, 3, 16, 16))
    counts = {
        int(state["step"]) for p in (trainer.g, trainer.d) for state in p.optim.state_dict()["state"].values()
    }
    assert counts == {1}


def test_adam_with_coupled_l2_equals_its_formula() -> None:
    g, _ = make_players(Config(model=Model(net="tiny16"), train=Train(precision="float64")), ALONE)
    weight = g.bare.get_parameter("project.weight")
    w = weight.detach().clone()
    m = v = torch.zeros_like(w)
    for t in range(1, 4):
        grad = torch.randn(w.shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        weight.grad = grad.clone()
        g.optim.step()
        total = grad + 1e-5 * w  # coupled: the penalty passes through the moments
        m, v = 0.5 * m + 0.5 * total, 0.999 * v + 0.001 * total**2
        w = w - 2e-4 * (m / (1 - 0.5**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach(), w, rtol=0, atol=1e-12)


def test_real_and_fake_batches_never_share_statistics() -> None:
    g, d = make_players(Config(model=Model(net="tiny16"), train=FLOAT32), ALONE)
    seen: list[int] = []
    norm = d.bare.get_submodule("norms.0")
    apart = norm.apart
    norm.apart = lambda batches: seen.extend(map(len, batches)) or apart(batches)
    update_d(g, d, real=torch.rand(8, 3, 16, 16), z=torch.rand(8, 16), cast=torch.enable_grad)
    assert seen == [8, 8]
    real, other = torch.rand(8, 3, 16, 16), torch.rand(8, 3, 16, 16) * 100
    on_real, on_other = d.bare(real, other)
    torch.testing.assert_close(d.bare(real), on_real, rtol=0, atol=0)
    torch.testing.assert_close(d.bare(other), on_other, rtol=0, atol=0)


def test_losses_are_the_papers_on_probabilities() -> None:
    g, d = make_players(Config(model=Model(net="tiny16"), train=Train(precision="float64")), ALONE)
    real, z = torch.rand(8, 3, 16, 16).double(), torch.rand(8, 16).double()
    with torch.no_grad():
        on_real, on_fake = (d.bare(x).sigmoid() for x in (real, g.bare(z)))
        expected = -on_real.log().mean() - (1 - on_fake).log().mean()
    told = means(update_d(g, d, real=real, z=z, cast=torch.enable_grad))
    assert told["loss/d"].item() == pytest.approx(expected.item(), rel=1e-12)
    assert told["d/real"].item() == pytest.approx(on_real.mean().item(), rel=1e-12)
    with torch.no_grad():
        expected = -d.bare(g.bare(z)).sigmoid().log().mean()
    assert update_g(g, d, z=z, cast=torch.enable_grad)["loss/g"].item() == pytest.approx(
        expected.item(), rel=1e-12
    )


def test_the_step_of_g_computes_no_gradient_of_d() -> None:
    g, d = make_players(Config(model=Model(net="tiny16"), train=FLOAT32), ALONE)
    update_g(g, d, z=torch.rand(8, 16), cast=torch.enable_grad)
    assert all(p.grad is None for p in d.bare.parameters())
    assert all(p.requires_grad for p in d.bare.parameters())
    update_both(g, d, real=torch.rand(8, 3, 16, 16), z=torch.rand(8, 16), cast=torch.enable_grad)
    assert all(p.grad is not None for p in d.bare.parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float32"])
def test_lower_precision_follows_float64_for_a_while(precision: str) -> None:
    losses = {}
    for kind in ("float64", precision):
        config = Config(model=Model(net="tiny16"), train=Train(precision=kind))  # type: ignore[arg-type]
        trainer = Trainer(config, ALONE)
        for step in range(10):
            generator = torch.Generator().manual_seed(step)
            trainer.update(step, (torch.rand(128, 3, 16, 16, generator=generator) * 2 - 1).to(trainer.dtype))
        losses[kind] = trainer.metrics(1)
    tolerance = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.1}[precision]
    for name in ("loss/d", "loss/g"):
        assert math.isclose(losses[precision][name], losses["float64"][name], rel_tol=tolerance), name


def test_the_mean_generator_follows_with_its_decay() -> None:
    trainer = Trainer(
        Config(model=Model(net="tiny16"), train=Train(ema_decay=0.9, precision="float32")), ALONE
    )
    assert trainer.ema is not None
    before = trainer.ema.get_parameter("project.weight").detach().clone()
    real = torch.rand(128, 3, 16, 16)
    trainer.update(0, real)
    expected = 0.9 * before + 0.1 * trainer.g.bare.get_parameter("project.weight")
    torch.testing.assert_close(trainer.ema.get_parameter("project.weight").detach(), expected.detach())
    trainer.update(1, real)  # D's turn: G, and so its mean, stay
    torch.testing.assert_close(trainer.ema.get_parameter("project.weight").detach(), expected.detach())
    assert trainer.shown is trainer.ema


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dcgan65", "neither a preset"),
        ("z8 k5 g 8@4 1@8 d 8@4", "ends in 1 channels"),
        ("z8 k5 g 8@4 3@16 d 8@8", "keeps or doubles the side, but 4 is followed by 16"),
        ("z8 k5 g 8@4 3@8 d 8@2", "keeps or halves the side, but 8 is followed by 2"),
        ("z8 k4 g 8@4 8@4 3@8 d 8@4", "needs an odd kernel"),
        ("z8 k9 g 8@4 3@8 d 8@4", "kernels of 3 to 7"),
        ("z0 k5 g 8@4 3@8 d 8@4", "at least 1"),
    ],
)
def test_a_text_that_is_no_network_is_refused(text: str, told: str) -> None:
    with pytest.raises(NetError, match=told):
        parse_net(text)
