"""Arithmetic and turns on a linear generator: it must always work, and its spread is known."""

import numpy as np
import pytest
import torch

from dcgan_dist.explore import arithmetic, turn
from dcgan_dist.explore.arithmetic import combine, neighbours, renormalise, take
from dcgan_dist.judge import concept
from dcgan_dist.judge.exemplars import Exemplars
from dcgan_dist.run_folder.finding import ExploreError

KINDS = {"glasses": True, "female": True, "yaw": False}


def linear_attributes(z: torch.Tensor) -> dict[str, np.ndarray]:
    """A linear generator and a perfect judge in one: z[0] is glasses, z[1] female, each near +-1; the rest is
    noise that nobody judges."""
    return {"glasses": (z[:, 0] > 0).float().numpy(), "female": (z[:, 1] > 0).float().numpy()}


def exemplars() -> Exemplars:
    draw = torch.Generator().manual_seed(0)
    texts = {"a": "glasses=1,female=0", "b": "glasses=0,female=0", "c": "glasses=0,female=1"}
    z = {}
    for name, text in texts.items():
        rows = torch.rand(200, 50, generator=draw) * 2 - 1
        rows[:, 0] = 1.0 if "glasses=1" in text else -1.0
        rows[:, 1] = 1.0 if "female=1" in text else -1.0
        z[name] = rows
    return Exemplars(z, {name: concept.parse(text, KINDS) for name, text in texts.items()}, None)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_on_a_linear_generator_it_always_works_without_bias_and_with_variance_one_over_n(count: int) -> None:
    chosen = exemplars()
    wanted = concept.combine(*(chosen.concepts[name] for name in "abc"))
    y = combine(**take(chosen, count, 400, seed=3))
    assert wanted.holds(linear_attributes(y)).all()
    torch.testing.assert_close(y[:, :2], torch.ones(400, 2))
    free = y[:, 2:]
    assert free.mean().abs() < 0.03
    # Three means of n uniform numbers of variance 1/3.
    assert free.var().item() == pytest.approx(1 / count, rel=0.1)


def test_exemplars_of_one_draw_are_different_and_draws_repeat_with_their_seed() -> None:
    chosen = take(exemplars(), 30, 5, seed=1)
    assert all(len({tuple(row) for row in draw.tolist()}) == 30 for draw in chosen["a"])
    again = take(exemplars(), 30, 5, seed=1)
    assert torch.equal(chosen["b"], again["b"])


def test_neighbours_surround_the_result_within_a_quarter() -> None:
    y = torch.zeros(1000)
    around = neighbours(y, torch.Generator().manual_seed(0))
    assert around.shape == (9, 1000)
    assert torch.equal(around[4], y)
    assert around.abs().max() <= 0.25
    assert around[[0, 1, 2, 3, 5, 6, 7, 8]].std(1).allclose(torch.tensor(0.25 / 3**0.5), atol=0.01)


def test_scaling_gives_the_priors_root_mean_square() -> None:
    y = renormalise(torch.randn(6, 4000), 0.577)
    torch.testing.assert_close(y.square().mean(1).sqrt(), torch.full((6,), 0.577))


def test_pixels_are_added_and_clipped() -> None:
    def flat(*values: int) -> np.ndarray:
        return np.stack([np.full((2, 2, 3), v, np.uint8) for v in values])

    mixed = arithmetic.mix_pixels({"a": flat(100, 200), "b": flat(50, 50), "c": flat(30, 10)})
    assert mixed.shape == (2, 2, 3)
    assert mixed[0, 0, 0] == 120
    assert arithmetic.mix_pixels({"a": flat(250), "b": flat(0), "c": flat(99)})[0, 0, 0] == 255
    assert arithmetic.mix_pixels({"a": flat(0), "b": flat(9), "c": flat(1)})[0, 0, 0] == 0


def test_what_the_sum_should_show_follows_from_the_concepts() -> None:
    a, b, c = (
        concept.parse(text, KINDS) for text in ("glasses=1,yaw>9", "glasses=0,yaw>9", "glasses=0,yaw<-9")
    )
    wanted = concept.combine(a, b, c)
    assert str(wanted) == "glasses = 1, yaw < -9"
    values = {"glasses": np.array([0.9, 0.9, 0.1], np.float32), "yaw": np.array([-20, 20, -20], np.float32)}
    assert wanted.holds(values).tolist() == [True, False, False]
    with pytest.raises(ExploreError, match="says nothing of glasses"):
        concept.combine(a, c, a)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("glasses", "is not a condition like glasses=1"),
        ("hat=1", "no attribute 'hat'; there are: female, glasses, yaw"),
        ("glasses>0", "glasses is 0 or 1; write glasses=0 or glasses=1"),
        ("yaw=3", "yaw is a number; write yaw>3 or yaw<3"),
        ("yaw>1.2.3", "'1.2.3' is not a number"),
    ],
)
def test_a_concept_that_is_none_is_refused(text: str, told: str) -> None:
    with pytest.raises(ExploreError, match=told):
        concept.parse(text, KINDS)


def test_a_turn_has_eleven_even_frames_with_the_sample_in_the_middle() -> None:
    z, v = torch.randn(5, 8), torch.randn(5, 8)
    walked = turn.frames(z, v)
    assert walked.shape == (5, 11, 8)
    torch.testing.assert_close(walked[:, 5], z)
    torch.testing.assert_close(walked[:, 0], z - v)
    torch.testing.assert_close(walked[:, 10], z + v)
    torch.testing.assert_close(walked[:, 6] - walked[:, 5], v / 5)


def test_rank_correlation_is_spearmans() -> None:
    stats = pytest.importorskip("scipy.stats")
    rows = np.random.default_rng(0).normal(size=(20, 11)).astype(np.float32)
    known = [stats.spearmanr(row, np.arange(11)).statistic for row in rows]
    np.testing.assert_allclose(turn.rank_correlation(rows), known)
    assert turn.rank_correlation(np.arange(11, dtype=np.float32)[None]).tolist() == [1.0]


def test_equal_values_share_their_mean_rank_and_a_row_of_them_shows_nothing() -> None:
    stats = pytest.importorskip("scipy.stats")
    rows = np.random.default_rng(0).integers(0, 4, (20, 11)).astype(np.float32)
    falling = np.minimum(1, 1 / (1 + np.exp(2.0 * np.arange(11) - 30))).astype(np.float32)  # saturates
    rows = np.concatenate([rows, falling[None], falling[None, ::-1]])
    known = [stats.spearmanr(row, np.arange(11)).statistic for row in rows]
    np.testing.assert_allclose(turn.rank_correlation(rows), known)
    assert turn.rank_correlation(np.full((1, 11), 0.5, np.float32)).tolist() == [0.0]


def test_on_a_linear_generator_the_yaw_follows_the_vector_in_order() -> None:
    yaw = torch.zeros(50)
    yaw[0] = 30.0
    z, v = torch.rand(200, 50) * 2 - 1, torch.rand(200, 50) * 0.2
    v[:, 0] = 1.0
    judged = (turn.frames(z, v) @ yaw).numpy()
    assert turn.rank_correlation(judged).tolist() == [1.0] * 200


def test_a_turn_is_held_to_the_way_that_was_asked_for() -> None:
    wanted = {"yaw>20": 1, "yaw<-20": -1, "glasses=1": 1, "glasses=0": -1}
    for text, sign in wanted.items():
        ((operator, value),) = concept.parse(text, KINDS).rules.values()
        assert turn.direction(operator, value) == sign
