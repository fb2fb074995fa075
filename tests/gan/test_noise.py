"""z by counter: a specification that no release of torch, and no number of ranks, may change."""

import numpy as np
import pytest
import torch

from dcgan_dist.gan.noise import Noise, draw_noise
from shards.dataset import splitmix

KINDS = ["uniform", "normal"]


def hashed(images: int, z_size: int, seed: int) -> np.ndarray:
    """The 64 bits behind every number, by the hash that orders samples."""
    key = splitmix.mix(np.array([seed], np.uint64))
    return splitmix.finish(splitmix.mix(np.arange(images * z_size, dtype=np.uint64)) ^ key).reshape(
        images, -1
    )


def test_uniform_numbers_are_the_upper_24_bits_of_the_hash() -> None:
    bits = (hashed(64, 100, 2**62 + 7) >> np.uint64(40)).astype(np.int64)
    bits = np.where(bits >= 2**23, bits - 2**24, bits)  # two's complement
    expected = (2 * bits + 1) / 2**24
    drawn = draw_noise(64, 100, kind="uniform", seed=2**62 + 7)
    assert drawn.dtype == torch.float32
    assert np.array_equal(drawn.double().numpy(), expected)


def test_normal_numbers_are_box_and_mullers_of_the_two_halves() -> None:
    bits = hashed(64, 100, 5)
    share, turn = ((half.astype(np.float64) + 0.5) / 2**32 for half in (bits >> np.uint64(32), bits % 2**32))
    expected = np.sqrt(-2 * np.log(share)) * np.cos(2 * np.pi * turn)
    torch.testing.assert_close(
        draw_noise(64, 100, kind="normal", seed=5), torch.from_numpy(expected).float(), rtol=1e-6, atol=1e-7
    )


def test_golden_values() -> None:
    drawn = draw_noise(2, 3, kind="uniform", seed=42)
    assert (drawn * 2**24).tolist() == [[658051, -13512389, 6727021], [11141465, 7671353, -10008767]]
    assert draw_noise(1, 3, kind="normal", seed=42)[0].tolist() == pytest.approx(
        [2.5304787, -0.8469434, 0.04663998], rel=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 8])
def test_the_rows_of_ranks_are_the_whole(kind: str, ranks: int) -> None:
    whole = draw_noise(32, 10, kind=kind, seed=9)
    each = 32 // ranks
    parts = [Noise(range(r * each, (r + 1) * each), 10, kind=kind).draw(9) for r in range(ranks)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(draw_noise(5, 10, kind=kind, seed=9), whole[:5])


@pytest.mark.parametrize(("kind", "var", "fourth"), [("uniform", 1 / 3, 1 / 5), ("normal", 1.0, 3.0)])
def test_moments_and_extremes(kind: str, var: float, fourth: float) -> None:
    z = draw_noise(20_000, 100, kind=kind, seed=1).double()
    assert z.mean().item() == pytest.approx(0, abs=0.003)
    assert (z**2).mean().item() == pytest.approx(var, rel=0.01)
    assert (z**4).mean().item() == pytest.approx(fourth, rel=0.02)
    assert (z < -0.5).double().mean().item() == pytest.approx(
        0.25 if kind == "uniform" else 0.3085, abs=0.002
    )
    assert (z.abs().max() < 1) == (kind == "uniform")


@pytest.mark.parametrize("kind", KINDS)
def test_neither_rows_nor_columns_nor_steps_have_to_do_with_each_other(kind: str) -> None:
    z = torch.stack([draw_noise(2000, 16, kind=kind, seed=seed) for seed in range(8)]).double()
    for other in (z.roll(1, 0), z.roll(1, 1), z.roll(1, 2), z.roll(7, 1)):
        shared = (z * other).mean() / (z**2).mean()
        assert abs(float(shared)) < 5 / z.numel() ** 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_gpu_draws_the_same_bits() -> None:
    rows = range(128, 256)
    on_gpu, on_cpu = (Noise(rows, 100, kind="uniform", device=d).draw(3).cpu() for d in ("cuda", "cpu"))
    assert torch.equal(on_gpu, on_cpu)
    on_gpu, on_cpu = (Noise(rows, 100, kind="normal", device=d).draw(3).cpu() for d in ("cuda", "cpu"))
    torch.testing.assert_close(on_gpu, on_cpu, rtol=2e-7, atol=0)
