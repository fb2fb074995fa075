"""Scores order damage as they should, and are the same on any number of ranks."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dcgan_dist.ranks.world import World, join
from dcgan_dist.scores import clusters as by_cluster
from dcgan_dist.scores.ndb import make_bins, ndb
from dcgan_dist.scores.precision_recall import copying, looks_copied, manifold_scores
from tests.processes import run_ranks


def normal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_scores_are_those_of_their_definitions() -> None:
    # Smaller than prdc's own example (see below), so compared with the definitions written out.
    real, fake = normal(300, 20, 1), normal(300, 20, 2)
    found = manifold_scores(real, fake, World.alone())
    a, b = real.numpy().astype(np.float64), fake.numpy().astype(np.float64)
    between = np.linalg.norm(a[:, None] - b[None], axis=-1)  # (real, fake)
    radius = {
        (name, k): np.sort(np.linalg.norm(x[:, None] - x[None], axis=-1), 1)[:, k]
        for name, x in (("real", a), ("fake", b))
        for k in (3, 5)
    }
    assert found == pytest.approx(
        {
            "precision": (between <= radius["real", 3][:, None]).any(0).mean(),
            "recall": (between <= radius["fake", 3]).any(1).mean(),
            "density": (between <= radius["real", 5][:, None]).sum() / (5 * 300),
            "coverage": (between.min(1) <= radius["real", 5]).mean(),
        },
        abs=0.004,
    )
    assert found["density"] == pytest.approx(1.1, abs=0.2)
    assert found["coverage"] == pytest.approx(0.97, abs=0.03)


@pytest.mark.slow
def test_prdc_gives_its_authors_values() -> None:
    found = manifold_scores(normal(10_000, 1000, 1), normal(10_000, 1000, 2), World.alone())
    assert found["density"] == pytest.approx(1.056, abs=0.06)
    assert found["coverage"] == pytest.approx(0.974, abs=0.02)


def clusters(shares: list[int], seed: int) -> Tensor:
    """Ten columns; cluster i lies around 8 times the i-th axis."""
    parts = [normal(count, 10, seed + i) + 8 * torch.eye(10)[i] for i, count in enumerate(shares)]
    return torch.cat(parts)


def test_precision_falls_with_noise_and_recall_with_dropped_modes() -> None:
    real = clusters([100, 100, 100], 1)
    same = manifold_scores(real, clusters([100, 100, 100], 10), World.alone())
    noisy = manifold_scores(real, clusters([100, 100, 100], 10) + 3 * normal(300, 10, 5), World.alone())
    dropped = manifold_scores(real, clusters([300, 0, 0], 10), World.alone())
    assert noisy["precision"] < same["precision"] - 0.3
    assert noisy["density"] < same["density"] - 0.3
    assert dropped["recall"] < same["recall"] - 0.3
    assert dropped["coverage"] < same["coverage"] - 0.3


def test_bins_show_a_dropped_class_and_none_where_there_is_none() -> None:
    real, other = clusters([200] * 5, 1), clusters([200] * 5, 50)
    centres = make_bins(real)
    same, dropped = ndb(centres, real, other), ndb(centres, real, clusters([250, 250, 250, 250, 0], 50))
    assert same["ndb"] < 0.2
    assert dropped["ndb"] > same["ndb"] + 0.15
    assert dropped["js"] > 2 * same["js"]
    itself = ndb(centres, real, real)
    assert (itself["ndb"], itself["js"]) == (0, pytest.approx(0, abs=1e-9))


def test_a_generator_that_copies_is_told_from_one_that_does_not() -> None:
    known, fresh = normal(400, 30, 1), normal(400, 30, 2)
    honest = copying(known, fresh, normal(400, 30, 3), World.alone())
    half = torch.cat([known[:300] + 0.05 * normal(300, 30, 4), normal(100, 30, 5)])
    assert honest["nearest_ratio"] == pytest.approx(1, abs=0.05)
    assert not looks_copied(honest)
    assert looks_copied(copying(known, fresh, half, World.alone()))


def test_a_blur_is_no_copy() -> None:
    """It lies nearer to every picture than another picture does, and at none of them."""
    known, fresh = (normal(400, 30, seed) + 3 * normal(400, 1, seed + 5) for seed in (1, 2))
    blur = known.mean(0) + 0.1 * normal(400, 30, 3)
    found = copying(known, fresh, blur, World.alone())
    assert found["nearest_to_second"] > 0.8
    assert not looks_copied(found | {"nearest_ratio": 0.1})


def on_ranks() -> dict[str, float]:
    with join(device="cpu", timeout_seconds=60) as here:
        real, fake = normal(301, 6, 1), normal(290, 6, 2)
        return manifold_scores(real, fake, here) | copying(real, fake, fake + 0.1, here)


def test_two_ranks_find_what_one_finds() -> None:
    real, fake = normal(301, 6, 1), normal(290, 6, 2)
    alone = manifold_scores(real, fake, World.alone()) | copying(real, fake, fake + 0.1, World.alone())
    assert run_ranks(on_ranks, 2) == [alone] * 2


def test_sums_by_cluster_are_the_same_as_a_product() -> None:
    draw = torch.Generator().manual_seed(0)
    rows, cluster = torch.randn(500, 7, generator=draw), torch.randint(9, (500,), generator=draw)
    found = torch.zeros(10, 7)
    by_cluster.add(rows, cluster, into=found)
    expected = torch.stack([rows[cluster == c].sum(0) for c in range(10)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_cluster.by_product(rows, cluster, 10), expected, rtol=1e-5, atol=1e-5)
