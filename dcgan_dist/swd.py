"""Sliced Wasserstein distance between two sets of pictures (Karras et al. 2018, section 5 and appendix B).

Each level of a Laplacian pyramid, from the full size down to 16 pixels, gives 128 patches of 7x7x3 a
picture, normalised per channel over the set; the distance is the mean |difference| of sorted projections
onto random directions, times 1000. It needs no pretrained network. Compare equal numbers of pictures, and
real with real for the floor.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

PATCH = 7
PATCHES_PER_IMAGE = 128
SMALLEST_SIDE = 16
DIRECTIONS = 512


def swd(a: NDArray[np.uint8], b: NDArray[np.uint8], *, seed: int = 0) -> dict[int, float]:
    """Distance times 1000 at each level, by side in pixels; `a` and `b` are uint8 (n, S, S, 3).

    Raises ValueError when the sets differ in number or size.
    """
    if a.shape != b.shape:
        raise ValueError(f"sliced Wasserstein distance compares equal sets, not {a.shape} with {b.shape}")
    draw = torch.Generator().manual_seed(seed)
    distances = {}
    for level_a, level_b in zip(_pyramid(a), _pyramid(b), strict=True):
        patches_a, patches_b = _patches(level_a, draw), _patches(level_b, draw)
        distances[level_a.shape[-1]] = _distance(patches_a, patches_b, draw) * 1000
    return distances


def mean_swd(a: NDArray[np.uint8], b: NDArray[np.uint8], *, seed: int = 0) -> float:
    """The mean over levels."""
    levels = swd(a, b, seed=seed)
    return sum(levels.values()) / len(levels)


def _pyramid(images: NDArray[np.uint8]) -> Iterator[Tensor]:
    """Laplacian levels (n, 3, s, s), finest first; the last one keeps the low frequencies."""
    level = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    while level.shape[-1] // 2 >= SMALLEST_SIDE:
        smaller = _blur(level)[:, :, ::2, ::2]
        yield level - _enlarge(smaller)
        level = smaller
    yield level


def _kernel() -> Tensor:
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    return torch.outer(row, row).expand(3, 1, 5, 5)


def _blur(images: Tensor) -> Tensor:
    return functional.conv2d(functional.pad(images, (2, 2, 2, 2), mode="reflect"), _kernel(), groups=3)


def _enlarge(images: Tensor) -> Tensor:
    n, channels, side, _ = images.shape
    spread = images.new_zeros(n, channels, 2 * side, 2 * side)
    spread[:, :, ::2, ::2] = images
    return _blur(spread) * 4


def _patches(level: Tensor, draw: torch.Generator) -> Tensor:
    """(n x 128, 7 x 7 x 3) random patches, normalised per channel over the set."""
    n, channels, side, _ = level.shape
    rows, columns = torch.randint(side - PATCH + 1, (2, n, PATCHES_PER_IMAGE), generator=draw)
    offsets = torch.arange(PATCH)
    at_rows = rows[:, :, None, None] + offsets[:, None]
    at_columns = columns[:, :, None, None] + offsets
    at_images = torch.arange(n)[:, None, None, None]
    patches = level.permute(0, 2, 3, 1)[at_images, at_rows, at_columns]  # (n, 128, 7, 7, 3)
    flat = patches.reshape(-1, PATCH * PATCH, channels)
    flat = flat - flat.mean((0, 1))
    return (flat / flat.std((0, 1)).clamp(min=1e-8)).flatten(1)


def _distance(a: Tensor, b: Tensor, draw: torch.Generator) -> float:
    total, parts = 0.0, 8
    for _ in range(parts):
        directions = torch.randn(a.shape[1], DIRECTIONS // parts, generator=draw)
        directions /= directions.norm(dim=0)
        projected = [(patches @ directions).sort(dim=0).values for patches in (a, b)]
        total += float((projected[0] - projected[1]).abs().mean())
    return total / parts
