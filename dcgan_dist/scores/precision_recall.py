"""Scores from nearest neighbours in a space of features, (n, d) a set.

Precision and recall of Kynkaanniemi et al. (2019), density and coverage of Naeem et al. (2020), and the
distance to the nearest training picture against that of held-out ones, which betrays a generator that copies.
Each rank measures its share of the rows.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from dcgan_dist.ranks.world import World

PRECISION_NEIGHBOUR = 3
DENSITY_NEIGHBOUR = 5
ROWS = 128
"""Measured together, whatever the number of ranks, so that all find the same bits."""
COPIES_BELOW = 0.5
"""Of both ratios of `copying`: fresh real pictures give about 1, copies 0."""


def manifold_scores(real: Tensor, fake: Tensor, here: World) -> dict[str, float]:
    """Precision, recall, density, coverage; both sets lie on the rank's device."""
    near_3 = _radii(real, PRECISION_NEIGHBOUR, here)
    near_5 = _radii(real, DENSITY_NEIGHBOUR, here)
    fake_3 = _radii(fake, PRECISION_NEIGHBOUR, here)
    inside = torch.zeros(4, dtype=torch.float64, device=real.device)
    for rows in shares(len(fake), here):
        distances = torch.cdist(fake[rows], real)  # (rows, n real)
        inside[0] += (distances <= near_3).any(1).sum()
        inside[1] += (distances <= near_5).sum()
    for rows in shares(len(real), here):
        distances = torch.cdist(real[rows], fake)
        inside[2] += (distances <= fake_3).any(1).sum()
        inside[3] += (distances.min(1).values <= near_5[rows]).sum()
    precision, density, recall, coverage = here.sum(inside).tolist()
    return {
        "precision": precision / len(fake),
        "recall": recall / len(real),
        "density": density / (DENSITY_NEIGHBOUR * len(fake)),
        "coverage": coverage / len(real),
    }


def copying(known: Tensor, held_out: Tensor, fake: Tensor, here: World) -> dict[str, float]:
    """Median distance to the nearest known picture, of samples and of held-out ones, and their ratio.

    `nearest_to_second` is the median, over samples, of the distances to the nearest and the second nearest: a
    blur is as near to many pictures, a copy to one.
    """
    mine, second = _two_nearest(fake, known, here)
    fresh, _ = _two_nearest(held_out, known, here)
    return {
        "nearest": float(mine.median()),
        "nearest_held_out": float(fresh.median()),
        "nearest_ratio": float(mine.median() / fresh.median().clamp(min=1e-12)),
        "nearest_to_second": float((mine / second.clamp(min=1e-12)).median()),
    }


def looks_copied(scores: Mapping[str, float]) -> bool:
    """Whether what `copying` found is so near to single known pictures that it was learned by heart."""
    return max(scores["nearest_ratio"], scores["nearest_to_second"]) < COPIES_BELOW


def _radii(points: Tensor, neighbour: int, here: World) -> Tensor:
    """(n,): how far each point's k-th neighbour is, itself not counted."""
    found = torch.zeros(len(points), device=points.device)
    for rows in shares(len(points), here):
        # Itself is at distance 0, or at rounding.
        found[rows] = torch.cdist(points[rows], points).topk(neighbour + 1, largest=False).values[:, -1]
    return here.sum(found)


def _two_nearest(points: Tensor, known: Tensor, here: World) -> Tensor:
    """(2, n): how far the nearest known rows and the second nearest are."""
    found = torch.zeros(len(points), 2, device=points.device)
    for rows in shares(len(points), here):
        found[rows] = torch.cdist(points[rows], known).topk(2, largest=False).values
    return here.sum(found).T


def shares(items: int, here: World, rows: int = ROWS) -> list[slice]:
    """This rank's rows, in pieces that are the same for any number of ranks."""
    return [slice(piece * rows, min((piece + 1) * rows, items)) for piece in here.share(-(-items // rows))]
