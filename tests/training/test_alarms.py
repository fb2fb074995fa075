"""What is broken ends the run; what looks like collapse is told once, and a healthy run is left in peace."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from dcgan_dist.config.settings import Config, Model, Run, Train
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.fingerprint import fingerprint
from dcgan_dist.gan.model import build
from dcgan_dist.gan.step import update_both
from dcgan_dist.ranks.world import World, join
from dcgan_dist.train import main
from dcgan_dist.training import alarms
from dcgan_dist.training.alarms import READINGS, Alarms, DivergedError
from dcgan_dist.training.trainer import Trainer
from tests.processes import run_ranks
from tests.test_promises import words

FLOAT32 = Train(precision="float32")


@pytest.mark.parametrize(("name", "what"), [("loss/d", "D tells all"), ("loss/g", "G fools D")])
def test_a_network_that_has_won_is_told_once(name: str, what: str) -> None:
    watch = Alarms()
    told = [watch.of_losses({name: 0.001}) for _ in range(READINGS + 3)]
    assert [len(each) for each in told] == [0] * (READINGS - 1) + [1, 0, 0, 0]
    assert what in told[READINGS - 1][0]


def test_losses_that_recover_are_no_alarm() -> None:
    watch = Alarms()
    values = [0.001] * (READINGS - 1) + [1.0]
    assert not any(watch.of_losses({"loss/d": value, "loss/g": 0.7}) for value in values * 3)


def test_samples_that_become_alike_are_told() -> None:
    watch = Alarms()
    assert not any(watch.of_diversity(value) for value in (0.0, 0.3, 0.8, 0.7, 0.9))
    (text,) = [text for _ in range(2 * READINGS) for text in watch.of_diversity(0.4)]
    assert "diversity 0.40 of real pictures', 0.90 before" in text


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    pairs = [((a / 255.0 - b / 255.0) ** 2).mean() for a, b in permutations(images, 2)]
    assert alarms.diversity(images) == pytest.approx(np.mean(pairs), rel=1e-5)


def responses(turn: int, *, ill: list[int]) -> torch.Tensor:
    """(8, 4, 6, 6) of z, but for the `ill` filters: those draw one mode that swings."""
    made = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(turn))
    mode = torch.randn(6, 6, generator=torch.Generator().manual_seed(99))
    for channel in ill:
        made[:, channel] = mode * (-1) ** turn + 0.01 * made[:, channel]
    return made


def test_filters_that_oscillate_in_one_mode_are_told() -> None:
    healthy, ill = Alarms(), Alarms()
    told = []
    for turn in range(READINGS + 2):
        assert not healthy.of_filters({"norms.0": responses(turn, ill=[])})
        told += ill.of_filters({"norms.0": responses(turn, ill=[1, 3])})
    assert len(told) == 1
    assert told[0].startswith("2 filters of g.norms.0 draw one oscillating mode, whatever z is: [1, 3]")


def test_a_fingerprint_sees_every_bit_and_every_place() -> None:
    def net() -> torch.nn.Module:
        return build(parse_net("tiny16"), norm_eps=1e-8, seeds=(1, 2))[0]

    one = fingerprint(net())
    assert one == fingerprint(net())
    flipped, swapped = net(), net()
    with torch.no_grad():
        weight = next(flipped.parameters()).view(-1)
        weight.view(torch.int32)[5] ^= 1
        other = next(swapped.parameters()).view(-1)
        other[:2] = other[:2].flip(0)
    assert fingerprint(flipped) != one
    assert fingerprint(swapped) != one


def test_the_odd_rank_is_named() -> None:
    prints = torch.tensor([[1, 5], [1, 5], [1, 6]])
    with pytest.raises(DivergedError, match="step 9: the weights of d on rank 2 are not those of the others"):
        alarms.check_same(prints, ("g", "d"), step=9)
    with pytest.raises(DivergedError, match="the weights of g on rank 0 or 1"):
        alarms.check_same(torch.tensor([[1, 5], [2, 5]]), ("g", "d"), step=9)
    alarms.check_same(prints[:2], ("g", "d"), step=9)


def check_tampered(rank_to_spoil: int) -> str:
    with join(device="cpu", timeout_seconds=60) as here:
        trainer = Trainer(Config(model=Model(net="tiny16"), train=FLOAT32, run=Run(dir="nowhere")), here)
        if here.rank == rank_to_spoil:
            with torch.no_grad():
                next(trainer.d.bare.parameters())[0, 0, 0, 0] += 1e-7
        try:
            trainer.check_weights(4)
        except DivergedError as error:
            return str(error)
        return ""


def test_ranks_that_hold_other_weights_stop() -> None:
    told = run_ranks(check_tampered, 3, 1)
    assert (
        told
        == [
            "step 4: the weights of d on rank 1 are not those of the others; "
            "its memory or its device may be faulty"
        ]
        * 3
    )


@pytest.mark.parametrize("name", ["g", "d"])
def test_weights_that_are_no_numbers_are_not_saved(name: str) -> None:
    alone = World(rank=0, ranks=1, device=torch.device("cpu"), group=None)
    trainer = Trainer(Config(model=Model(net="tiny16"), train=FLOAT32), alone)
    with torch.no_grad():
        next(getattr(trainer, name).bare.parameters())[0, 0] = float("nan")
    with pytest.raises(DivergedError, match=rf"step 3: weights {name}\..* are not finite"):
        trainer.check_weights(3)


@pytest.mark.parametrize("kind", ["exp_avg", "exp_avg_sq"])
def test_moments_of_adam_that_are_no_numbers_are_not_saved(kind: str) -> None:
    alone = World(rank=0, ranks=1, device=torch.device("cpu"), group=None)
    trainer = Trainer(Config(model=Model(net="tiny16"), train=FLOAT32), alone)
    update_both(
        trainer.g, trainer.d, real=torch.rand(8, 3, 16, 16), z=torch.rand(8, 16), cast=torch.enable_grad
    )
    trainer.check_weights(3)
    weight = next(trainer.d.bare.parameters())
    trainer.d.optim.state[weight][kind][0, 0] = float("inf")
    with pytest.raises(DivergedError, match=rf"step 3: Adam's {kind} of d\.\S+ are not finite; lower optim"):
        trainer.check_weights(3)


def test_a_run_whose_adam_overflows_ends_before_it_is_saved(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(rooms16, tmp_path / "run", "--train.steps=6", "--optim.weight_decay=1e30")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "are not finite; lower optim.lr or optim.weight_decay" in line
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_run_that_diverges_names_step_network_and_last_good_checkpoint(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(words(rooms16, run, "--train.steps=2")) == 0
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("lr: 0.0002", "lr: 1.0e+30"))
    manifest = run / "checkpoints" / "step-00000002.json"
    manifest.write_text(manifest.read_text().replace('"lr": 0.0002', '"lr": 1e+30'))
    capsys.readouterr()
    assert main(words(rooms16, run, "--train.steps=20", "--optim.lr=1e30")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: step ")
    assert "loss/" in line
    assert line.endswith(f"the last good checkpoint is step-00000002 in {run}")
