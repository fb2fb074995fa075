"""Number of statistically different bins (Richardson and Weiss 2018): which of the training set's clusters
samples miss or overfill. Bins are K-means clusters of the first set; a two-proportion z-test at 5 % compares.
"""

import torch
from torch import Tensor

from dcgan_dist.scores import clusters

BINS = 100
IMAGES_PER_BIN = 10
ITERATIONS = 30
Z_LIMIT = 1.96


def make_bins(images: Tensor, *, seed: int = 0) -> Tensor:
    """Centres (k, d) of clusters of `images` (n, d); k is 100, less where pictures are few."""
    bins = max(2, min(BINS, len(images) // IMAGES_PER_BIN))
    draw = torch.Generator().manual_seed(seed)
    centres = images[torch.randperm(len(images), generator=draw)[:bins].to(images.device)].clone()
    for _ in range(ITERATIONS):
        nearest = torch.cdist(images, centres).argmin(1)
        counts = torch.bincount(nearest, minlength=bins)
        sums = torch.zeros_like(centres)
        clusters.add(images, nearest, into=sums)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres


def ndb(centres: Tensor, reference: Tensor, other: Tensor) -> dict[str, float]:
    """Share of bins that differ, and the Jensen-Shannon divergence of the two histograms in nats."""
    one, two = (_histogram(centres, images) for images in (reference, other))
    n, m = len(reference), len(other)
    pooled = (one * n + two * m) / (n + m)
    spread = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    z = (one - two).abs() / spread.clamp(min=1e-12)
    middle = (one + two) / 2
    divergence = (_entropy(middle) - (_entropy(one) + _entropy(two)) / 2).clamp(min=0)
    return {"ndb": float((z > Z_LIMIT).double().mean()), "js": float(divergence)}


def _histogram(centres: Tensor, images: Tensor) -> Tensor:
    counts = torch.bincount(torch.cdist(images, centres).argmin(1), minlength=len(centres))
    return counts.double() / len(images)


def _entropy(shares: Tensor) -> Tensor:
    found: Tensor = torch.special.xlogy(shares, shares).sum()
    return -found
