"""The sliced Wasserstein distance orders pictures as it should (Karras et al. 2018)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from dcgan_dist import evaluate
from dcgan_dist.ranks.world import World, join
from dcgan_dist.scores.swd import mean_swd, swd
from dcgan_dist.train import main as train
from shards.building.build import build
from shards.dataset.index import load
from shards.dataset.reader import Blocks
from shards.sources.drawn.rooms import Rooms
from tests.processes import run_ranks
from tests.test_promises import words


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    out = str(tmp_path_factory.mktemp("rooms32") / "set")
    build(Rooms(128, size=32), out, size=32, workers=1)
    return Blocks(out, load(out)).sample(128)


def blurred(images: np.ndarray, radius: float) -> np.ndarray:
    return np.stack(
        [np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))) for image in images]
    )


def test_more_damage_is_further_away_and_real_is_the_floor(real: np.ndarray) -> None:
    reference, other = real[::2], real[1::2]
    noise = np.random.default_rng(0).normal(0, 30, other.shape)
    noisy = [np.clip(other + strength * noise, 0, 255).astype(np.uint8) for strength in (0.5, 1)]
    few = other[np.arange(len(other)) % 8]  # dropped modes
    floor, blur_1, blur_2, noise_1, noise_2, dropped = mean_swd(
        reference, [other, blurred(other, 0.7), blurred(other, 1.5), *noisy, few], World.alone()
    )
    assert floor < blur_1 < blur_2
    assert floor < noise_1 < noise_2
    assert floor < dropped


def test_levels_go_from_the_full_size_down_to_16(real: np.ndarray) -> None:
    assert list(swd(real[:8], [real[8:16]], World.alone())[0]) == [32, 16]


def test_a_set_is_at_no_distance_from_itself_but_its_random_patches(real: np.ndarray) -> None:
    itself, other = mean_swd(real[::2], [real[::2], 255 - real[::2]], World.alone())
    assert itself < other / 4


def apart(images: np.ndarray) -> list[dict[int, float]]:
    with join(device="cpu", timeout_seconds=60) as here:
        return swd(images[::2], [images[1::2], 255 - images[1::2]], here)


def test_three_ranks_share_the_directions_and_find_the_bits_of_one(real: np.ndarray) -> None:
    torch.set_num_threads(1)
    assert run_ranks(apart, 3, real[:16]) == [apart(real[:16])] * 3


@pytest.mark.parametrize("side", [4, 6, 33, 66])
def test_small_and_odd_sides_are_measured_too(side: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)
    flat = np.repeat(np.repeat(images[:, :1, :1], side, 1), side, 2)
    itself, other = mean_swd(images, [images, flat], World.alone())
    assert itself < other


def test_unequal_sets_are_refused(real: np.ndarray) -> None:
    with pytest.raises(ValueError, match="compares equal sets"):
        mean_swd(real[:8], [real[:9]], World.alone())


def test_the_command_tells_floor_start_and_end(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(words(rooms16, run, "--train.steps=2")) == 0
    assert evaluate.main([str(run), "--images", "64"]) == 0
    told = capsys.readouterr().out
    for name in ("the floor", "step 0", "step 2"):
        assert name in told
    assert evaluate.main([str(run), "--images", "301"]) == 2
    assert "has 600 pictures, 602 are needed" in capsys.readouterr().err
