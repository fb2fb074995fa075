"""Forgetting on a generator whose maps are known: some draw only windows, the others only walls."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dcgan_dist.explore import forget
from dcgan_dist.gan.batchnorm import BatchNorm
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.model import Generator
from dcgan_dist.judge.ground_truth import box_mask
from dcgan_dist.run_folder.finding import ExploreError

WINDOWS = 3  # maps 0, 1, 2 of 8 at the 8x8 layer
SIZE = 16


def known_generator() -> Generator:
    """z[0] > 0 draws a blue window by maps 0 to 2; maps 3 to 7 colour the wall everywhere else, by z[1:]."""
    g = Generator(parse_net("z6 k3 g 8@8 8@8 3@16 d 8@8"), norm_eps=0.0)
    torch.nn.init.zeros_(g.project.weight)
    project = g.project.weight.view(8, 8, 8, 6)
    project[:WINDOWS, 2:5, 2:5, 0] = 1.0
    for number in range(WINDOWS, 8):
        project[number, :, :, 1 + number % 5] = 0.5
        project[number, 2:5, 2:5, 1 + number % 5] = 0.0
    same = torch.zeros_like(g.convs[0].weight)
    same[range(8), range(8), 1, 1] = 1.0  # passes each map on
    g.convs[0].weight.copy_(same)
    torch.nn.init.zeros_(g.convs[1].weight)
    g.convs[1].weight[:WINDOWS, 2] = 1.0
    g.convs[1].weight[WINDOWS:, 0] = 0.3
    for module in g.modules():
        if isinstance(module, BatchNorm):
            module.running_mean = torch.zeros_like(module.bias)
            module.running_var = torch.ones_like(module.bias)
    return g.eval()


@pytest.fixture(scope="module")
def toy() -> tuple[Generator, torch.Tensor, list[list[list[float]]]]:
    with torch.no_grad():
        g = known_generator()
    z = torch.rand(60, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    box = [2 / 8, 2 / 8, 5 / 8, 5 / 8]
    return g.requires_grad_(False), z, [[box] if row[0] > 0 else [] for row in z]


def test_the_maps_that_draw_windows_are_chosen_and_no_others(
    toy: tuple[Generator, torch.Tensor, list[list[list[float]]]],
) -> None:
    g, z, boxes = toy
    maps = forget.maps_of(g, z, 1)
    weights = forget.logistic_weights(*forget.cells(maps, boxes, seed=0))
    assert np.flatnonzero(weights > 0).tolist() == [0, 1, 2]
    scores = forget.overlaps(maps, boxes, size=SIZE)
    assert np.flatnonzero(forget.strongest(scores, WINDOWS)).tolist() == [0, 1, 2]


def test_without_them_windows_are_gone_and_all_else_is_as_it_was(
    toy: tuple[Generator, torch.Tensor, list[list[list[float]]]],
) -> None:
    g, z, _ = toy
    before = g(z)
    with forget.without(g, 1, np.arange(8) < WINDOWS):
        after = g(z)
    assert before[:, 2].max() > 0.5
    assert after[:, 2].abs().max() == 0
    assert torch.equal(before[:, 0], after[:, 0])
    # Outside the block the generator is itself again.
    assert torch.equal(g(z), before)


@pytest.mark.parametrize("layer", [0, 1])
def test_maps_are_those_after_relu(
    layer: int, toy: tuple[Generator, torch.Tensor, list[list[list[float]]]]
) -> None:
    g, z, _ = toy
    maps = forget.maps_of(g, z, layer)
    assert maps.shape == (60, 8, 8, 8)
    assert maps.min() == 0
    torch.testing.assert_close(maps[:, 0, 3, 3], z[:, 0].clamp(min=0))


def test_cells_are_balanced_and_negatives_lie_outside_all_boxes_of_pictures_that_have_one() -> None:
    maps = torch.arange(4 * 16, dtype=torch.float32).view(4, 1, 4, 4)
    boxes = [[[0, 0, 0.5, 0.5]], [], [[0.5, 0.5, 1, 1]], []]
    rows, inside = forget.cells(maps, boxes, seed=1)
    assert inside.tolist() == [True] * 8 + [False] * 8
    assert rows[:8, 0].tolist() == [0, 1, 4, 5, 32 + 10, 32 + 11, 32 + 14, 32 + 15]
    assert set((rows[8:, 0] // 16).tolist()) <= {0, 2}
    assert not set(rows[8:, 0].tolist()) & set(rows[:8, 0].tolist())


def test_a_cell_counts_where_its_centre_lies() -> None:
    mask = box_mask([[0.2, 0.0, 0.6, 0.4]], 4)  # centres at 1/8, 3/8, 5/8, 7/8
    assert np.argwhere(mask).tolist() == [[0, 1], [1, 1]]


def test_the_regression_is_scikit_learns() -> None:
    dice = np.random.default_rng(0)
    rows = dice.normal(size=(300, 12))
    positive = rows @ dice.normal(size=12) + dice.normal(size=300) + 0.5 > 0
    known = LogisticRegression(tol=1e-8, max_iter=5000).fit(rows, positive).coef_[0]
    np.testing.assert_allclose(forget.logistic_weights(rows, positive), known, atol=1e-4)


def test_a_layer_that_is_not_there_and_boxes_that_hold_no_cell_are_refused(
    toy: tuple[Generator, torch.Tensor, list[list[list[float]]]],
) -> None:
    g, z, _ = toy
    assert forget.layer_number(g, None) == 1
    with pytest.raises(ExploreError, match=r"no layer '9@9' in the generator; there are: 8@8, 8@8"):
        forget.layer_number(g, "9@9")
    with pytest.raises(ExploreError, match="label more pictures"):
        forget.cells(forget.maps_of(g, z, 1), [[] for _ in z], seed=0)


def test_the_second_highest_layer_of_the_papers_network_is_the_one_of_512_maps() -> None:
    with torch.device("meta"):
        g = Generator(parse_net("dcgan64"), norm_eps=1e-8)
    assert g.net.g[forget.layer_number(g, None)].channels == 512
    assert forget.layer_number(g, "256@16") == 2
