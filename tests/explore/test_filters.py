"""Guided backpropagation on discriminators built by hand, where the answer is known."""

import numpy as np
import pytest
import torch

from dcgan_dist.explore import filters
from dcgan_dist.explore.filters import crop, features, overlap, receptive_field, saliency, tops
from dcgan_dist.gan.batchnorm import BatchNorm
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.model import Discriminator
from dcgan_dist.run_folder.opened_run import to_tensor


def transparent(net: str) -> Discriminator:
    """A discriminator whose batch norm changes nothing and whose kernels are zero."""
    d = Discriminator(parse_net(net), norm_eps=0.0)
    for module in d.modules():
        if isinstance(module, BatchNorm):
            module.running_mean = torch.zeros_like(module.bias)
            module.running_var = torch.ones_like(module.bias)
    for conv in d.convs:
        torch.nn.init.zeros_(conv.weight)
    return d.eval().requires_grad_(False)


def window_detector() -> Discriminator:
    """Map 0 of the last layer fires where a bright, red square of 8x8 pixels is: sums of red, of sums."""
    d = transparent("z4 k5 g 4@4 4@8 4@16 3@32 d 2@16 2@8 2@4")
    d.convs[0].weight[0, 0] = 1.0
    d.convs[1].weight[0, 0] = 1.0
    d.convs[2].weight[0, 0, 1:4, 1:4] = 1.0
    return d


def pictures_with_a_square(count: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Grey pictures, each with a square somewhere; the first has the brightest."""
    images, places = np.full((count, 32, 32, 3), 127, np.uint8), []
    dice = np.random.default_rng(0)
    for i, image in enumerate(images):
        top, left = dice.integers(4, 20, 2).tolist()
        image[top : top + 8, left : left + 8, 0] = 255 - 10 * i
        places.append((top, left))
    return images, places


@pytest.mark.parametrize(("net", "sizes"), [("dcgan64", 61), ("small32", 29), ("imagenet32", 29)])
def test_receptive_fields_are_those_of_the_networks(net: str, sizes: int) -> None:
    with torch.device("meta"):
        field = receptive_field(Discriminator(parse_net(net), norm_eps=1e-8))
    assert field.size == sizes


def test_a_unit_sees_its_receptive_field_and_nothing_else() -> None:
    d = Discriminator(parse_net("small32"), norm_eps=1e-8)
    for module in d.modules():
        if isinstance(module, BatchNorm):
            module.running_mean, module.running_var = torch.zeros(1), torch.ones(1)
            module.running_mean = torch.zeros_like(module.bias)
            module.running_var = torch.ones_like(module.bias)
    for conv in d.convs:
        torch.nn.init.constant_(conv.weight, 0.01)  # all gradients positive, so all that can pass does
    d.eval()
    field = receptive_field(d)
    seen = saliency(d, torch.ones(1, 3, 32, 32), (0, torch.tensor([2]), torch.tensor([1])))[0, 0] > 0
    rows, columns = torch.nonzero(seen.any(1)).flatten(), torch.nonzero(seen.any(0)).flatten()
    top, left = field.start + 2 * field.jump, field.start + field.jump
    assert (int(rows[0]), int(rows[-1])) == (max(0, top), min(31, top + field.size - 1))
    assert (int(columns[0]), int(columns[-1])) == (max(0, left), min(31, left + field.size - 1))


def test_the_tile_shows_the_square_that_the_unit_looks_for() -> None:
    d, (images, places) = window_detector(), pictures_with_a_square(12)
    best, rows, columns = tops(filters.activations(d, images), 5)
    gradients = saliency(d, to_tensor(images[best[0].numpy()]), (0, rows[0], columns[0]))
    for picture, row, column, gradient in zip(best[0].tolist(), rows[0], columns[0], gradients, strict=True):
        top, left = places[picture]
        field = receptive_field(d)
        centre = field.start + field.size // 2
        # The unit that fires most is centred on the square, to within its stride.
        assert abs(centre + int(row) * field.jump - (top + 3.5)) <= field.jump
        assert abs(centre + int(column) * field.jump - (left + 3.5)) <= field.jump
        # Where the picture is grey a little below 0, the first layer is negative: nothing passes there.
        inside = gradient[:, max(0, top - 4) : top + 12, max(0, left - 4) : left + 12].abs().sum()
        assert inside >= 0.8 * gradient.abs().sum()
        assert gradient[1:].abs().max() == 0, "only red is looked for"


def test_only_positive_inputs_and_positive_gradients_pass() -> None:
    d = transparent("z4 k3 g 4@4 3@4 d 2@4 1@4")
    d.convs[0].weight[0, 0, 1, 1] = 1.0  # map 0 is red, map 1 is minus red
    d.convs[0].weight[1, 0, 1, 1] = -1.0
    d.convs[1].weight[0, :, 1, 1] = torch.tensor([2.0, -3.0])
    red = torch.zeros(1, 3, 4, 4)
    red[0, 0, 1, 1], red[0, 0, 2, 2] = 0.5, -0.5
    at = torch.tensor
    assert features(d, red)[0, 0, 1, 1] == pytest.approx(2 * 0.5 - 3 * -0.1)
    # A plain gradient is 2 + 3 x 0.2; guided, map 1's negative input and negative weight block it.
    assert saliency(d, red, (0, at([1]), at([1])))[0, 0, 1, 1] == 2.0
    # At (2, 2) the unit is negative itself: nothing passes.
    assert saliency(d, red, (0, at([2]), at([2]))).abs().max() == 0


def test_a_tile_is_grey_where_it_leaves_the_picture() -> None:
    field = filters.Field(size=5, jump=2, start=-2)
    tile = crop(torch.ones(3, 8, 8), field, row=0, column=1)
    assert tile.shape == (3, 5, 5)
    assert tile[0].tolist() == [[0] * 5] * 2 + [[1] * 5] * 3
    assert crop(torch.ones(3, 8, 8), field, row=3, column=3)[0].sum() == 16


def test_overlap_finds_the_map_that_is_where_the_object_is() -> None:
    masks = np.zeros((40, 1, 16, 16), np.bool_)
    maps = torch.rand(40, 2, 8, 8) * 0.1
    for i in range(40):
        row = i % 7
        masks[i, 0, 2 * row : 2 * row + 2, 4:6] = True
        maps[i, 0, row, 2] = 1.0
    found = overlap(maps, masks)[:, 0]
    assert found[0] > 0.2
    assert found[1] < 0.05
