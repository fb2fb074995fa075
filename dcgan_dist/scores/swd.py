"""Sliced Wasserstein distance between two sets of pictures (Karras et al. 2018, section 5 and appendix B).

Each level of a Laplacian pyramid, from the full size down to 16 pixels, gives 128 patches of 7x7x3 a
picture, normalised per channel over the set; the distance is the mean |difference| of sorted projections
onto random directions, times 1000. Directions and places are drawn on the CPU, so that a GPU, which does all
the rest, takes the same. It needs no pretrained network. Compare equal numbers of pictures, and
real with real for the floor. Pictures smaller than a patch are compared whole.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dcgan_dist.ranks.world import World
from shards.arrays import U8

PATCH = 7
PATCHES_PER_IMAGE = 128
SMALLEST_SIDE = 16
DIRECTIONS = 512
PARTS = 8
"""In which the directions are taken, and shared by the ranks."""


def swd(reference: U8, sets: Sequence[U8], here: World, *, seed: int = 0) -> list[dict[int, float]]:
    """Distance times 1000 of each of `sets` from `reference`, by level's side in pixels; all ranks call it.

    All are uint8 (n, S, S, 3) of one shape; raises ValueError otherwise.
    """
    for other in sets:
        if other.shape != reference.shape:
            raise ValueError(
                f"sliced Wasserstein distance compares equal sets, not {reference.shape} with {other.shape}"
            )
    draw = torch.Generator().manual_seed(seed)
    sides: list[int] = []
    tables: list[Tensor] = []
    for levels in zip(*(_pyramid(images, here.device) for images in (reference, *sets)), strict=True):
        patches = [_patches(level, draw) for level in levels]
        sides.append(levels[0].shape[-1])
        tables.append(_distances(patches, draw, here, done=len(tables) * PARTS))
    table = here.sum(torch.stack(tables).to(here.device)).cpu()  # (levels, parts, sets), 0 where not mine
    means = (table.mean(1) * 1000).T.tolist()
    return [dict(zip(sides, levels, strict=True)) for levels in means]


def mean_swd(reference: U8, sets: Sequence[U8], here: World, *, seed: int = 0) -> list[float]:
    """The mean over levels, of each of `sets`."""
    return [sum(levels.values()) / len(levels) for levels in swd(reference, sets, here, seed=seed)]


def _pyramid(images: U8, device: torch.device) -> Iterator[Tensor]:
    """Laplacian levels (n, 3, s, s) on `device`, finest first; the last one keeps the low frequencies."""
    level = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
    while level.shape[-1] // 2 >= SMALLEST_SIDE:
        smaller = _blur(level)[:, :, ::2, ::2]
        side = level.shape[-1]  # an odd one's half is rounded up
        yield level - _enlarge(smaller)[..., :side, :side]
        level = smaller
    yield level


def _kernel(device: torch.device) -> Tensor:
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=device) / 16
    return torch.outer(row, row).expand(3, 1, 5, 5)


def _blur(images: Tensor) -> Tensor:
    padded = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    return functional.conv2d(padded, _kernel(images.device), groups=3)


def _enlarge(images: Tensor) -> Tensor:
    n, channels, side, _ = images.shape
    spread = images.new_zeros(n, channels, 2 * side, 2 * side)
    spread[:, :, ::2, ::2] = images
    return _blur(spread) * 4


def _patches(level: Tensor, draw: torch.Generator) -> Tensor:
    """(n x 128, 7 x 7 x 3) random patches, normalised per channel over the set."""
    n, channels, side, _ = level.shape
    patch = min(PATCH, side)
    rows, columns = torch.randint(side - patch + 1, (2, n, PATCHES_PER_IMAGE), generator=draw)
    offsets = torch.arange(patch)
    at_rows = rows[:, :, None, None] + offsets[:, None]
    at_columns = columns[:, :, None, None] + offsets
    at_images = torch.arange(n)[:, None, None, None]
    places = (each.to(level.device) for each in (at_images, at_rows, at_columns))
    patches = level.permute(0, 2, 3, 1)[tuple(places)]  # (n, 128, 7, 7, 3)
    flat = patches.reshape(-1, patch * patch, channels)
    flat = flat - flat.mean((0, 1))
    return (flat / flat.std((0, 1)).clamp(min=1e-8)).flatten(1)


def _distances(patches: list[Tensor], draw: torch.Generator, here: World, *, done: int) -> Tensor:
    """(parts, sets): mean |difference| of sorted projections of the first set and each other one.

    0 in those parts that are other ranks'; `done` parts were shared out before.
    """
    found = torch.zeros(PARTS, len(patches) - 1, device=patches[0].device)
    for part in range(PARTS):
        directions = torch.randn(patches[0].shape[1], DIRECTIONS // PARTS, generator=draw)
        directions /= directions.norm(dim=0)
        if (done + part) % here.ranks != here.rank:
            continue
        across = directions.to(patches[0].device)
        reference, *others = (_sorted(across.T @ each.T) for each in patches)
        found[part] = torch.stack([(other - reference).abs().mean(1).mean() for other in others])
    return found


def _sorted(rows: Tensor) -> Tensor:
    if rows.device.type != "cpu":
        return rows.sort(dim=1).values
    # In one piece, and by numpy: with vector instructions, an order of magnitude faster.
    return torch.from_numpy(np.sort(rows.numpy(), axis=1))
