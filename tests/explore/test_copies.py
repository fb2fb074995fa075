"""Copying and repeating generators are found out; honest ones are not."""

import numpy as np
import pytest

from dcgan_dist.explore.neighbours import ALARM, excess, nearest
from dcgan_dist.explore.underfit import repetition
from shards.sources.drawn.rooms import Rooms


def rooms(first: int, count: int) -> np.ndarray:
    source = Rooms(first + count, size=32, seed=1)
    return np.stack([np.asarray(source.item(first + i).image) for i in range(count)])


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, held-out and more pictures of the same kind."""
    return rooms(0, 400), rooms(400, 200), rooms(600, 200)


@pytest.mark.parametrize(("copied", "alarmed"), [(0.0, False), (0.6, True), (1.0, True)])
def test_a_generator_that_copies_alarms(
    copied: float, alarmed: bool, sets: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    train, held_out, fresh = sets
    count = int(copied * len(fresh))
    noise = np.random.default_rng(0).integers(-3, 4, fresh.shape)
    samples = np.clip(np.concatenate([train[:count], fresh[count:]]) + noise, 0, 255).astype(np.uint8)
    nearer = int((nearest(samples, train)[0] < nearest(samples, held_out)[0]).sum())
    chance, errors = excess(nearer, len(samples), train=len(train), held_out=len(held_out))
    assert chance == pytest.approx(2 / 3)
    assert (errors >= ALARM) is alarmed


def test_the_nearest_picture_and_its_distance_are_exact(
    sets: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    train, _, fresh = sets
    distance, row = nearest(fresh[:5], train)
    every = np.sqrt(((fresh[:5, None].astype(float) - train) ** 2).mean((2, 3, 4))) / 255
    assert row.tolist() == every.argmin(1).tolist()
    np.testing.assert_allclose(distance, every.min(1), rtol=1e-3)


def test_repetition_grows_with_the_share_of_pictures_that_carry_one_noise_tile() -> None:
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (60, 32, 32, 3)).astype(np.uint8)
    tile = dice.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    found = []
    for stamped in (0, 12, 30, 60):
        marked = images.copy()
        marked[:stamped, 8:16, 16:24] = tile
        found.append(repetition(marked))
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.04, "one block of sixteen is the same everywhere"
    assert repetition(np.full((5, 32, 32, 3), 90, np.uint8)) < 1e-6, "flat pictures repeat nothing"
