"""Features by one layer of K-means (Coates, Ng and Lee 2011, and Coates's demo code): table 1's baseline.

Random patches, contrast normalised and whitened, are clustered; a picture's features are the triangle
activations of all its patches, summed over four quadrants, standardised. Values are on the 0 to 255 scale.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dcgan_dist.probe.features import empty_rows
from dcgan_dist.scores import clusters
from shards.arrays import F32, U8

CONTRAST_EPS = 10.0
WHITENING_EPS = 0.1
SPREAD_EPS = 0.01
C_OF_MEAN = 100.0
"""C of the SVM on these features where the loss is a mean over samples; divide by their number for a sum."""
ITERATIONS = 50
CHUNK_VALUES = 2**26
COLUMNS = 512


@dataclass(frozen=True)
class Dictionary:
    """Centroids (k, p) of patches whitened by (x - mean) @ whiten; `side` is a patch's in pixels."""

    centroids: Tensor
    mean: Tensor
    whiten: Tensor
    side: int


def learn(
    images: U8, *, centroids: int, side: int, patches: int, seed: int, device: torch.device
) -> Dictionary:
    """Cluster `patches` random patches of uint8 (n, S, S, c) pictures."""
    draw = torch.Generator().manual_seed(seed)
    x = _contrast(_random_patches(images, patches, side, draw).to(device))
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    whiten = vectors * (values.clamp(min=0) + WHITENING_EPS).rsqrt() @ vectors.T
    x = (x - mean) @ whiten
    found = (torch.randn(centroids, x.shape[1], generator=draw) * 0.1).to(device)
    for _ in range(ITERATIONS):
        found = _move(found, x)
    return Dictionary(found, mean, whiten, side)


def _random_patches(images: U8, patches: int, side: int, draw: torch.Generator) -> Tensor:
    """(patches, side x side x c): patch i from picture i mod n."""
    room = images.shape[1] - side + 1
    rows, columns = torch.randint(room, (2, patches), generator=draw)
    span = torch.arange(side)
    at_rows, at_columns = rows[:, None, None] + span[:, None], columns[:, None, None] + span
    numbers = (torch.arange(patches) % len(images))[:, None, None]
    return torch.from_numpy(images)[numbers, at_rows, at_columns].flatten(1).float()


def _contrast(patches: Tensor) -> Tensor:
    var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (var + CONTRAST_EPS).sqrt()


def _move(centroids: Tensor, x: Tensor) -> Tensor:
    """One iteration: each centroid to the mean of its patches; one that has none, to zero."""
    sums, counts = torch.zeros_like(centroids), centroids.new_zeros(len(centroids))
    half_squares = centroids.square().sum(1) / 2
    for part in torch.split(x, max(1, CHUNK_VALUES // len(centroids))):
        nearest = (part @ centroids.T - half_squares).argmax(1)
        clusters.add(part, nearest, into=sums)
        counts += torch.bincount(nearest, minlength=len(centroids))
    return sums / counts.clamp(min=1)[:, None]


def features(dictionary: Dictionary, images: U8) -> F32:
    """Uint8 (n, S, S, c) -> (n, 4k), not standardised."""
    out = empty_rows(len(images), 4 * len(dictionary.centroids))
    at = 0
    for part in _parts(dictionary, images):
        pooled = _pooled(dictionary, torch.from_numpy(part).to(dictionary.mean.device))
        out[at : at + len(part)] = pooled.cpu().numpy()
        at += len(part)
    return out


def _parts(dictionary: Dictionary, images: U8) -> Iterator[U8]:
    positions = (images.shape[1] - dictionary.side + 1) ** 2
    step = max(1, CHUNK_VALUES // (positions * len(dictionary.centroids)))
    for start in range(0, len(images), step):
        yield images[start : start + step]


def _pooled(dictionary: Dictionary, images: Tensor) -> Tensor:
    side = dictionary.side
    room = images.shape[1] - side + 1
    # (n, room, room, c, side, side) -> a patch as rows x columns x channels, as in `learn`
    patches = images.float().unfold(1, side, 1).unfold(2, side, 1).permute(0, 1, 2, 4, 5, 3).flatten(3)
    whitened = (_contrast(patches) - dictionary.mean) @ dictionary.whiten
    distances = torch.cdist(whitened.flatten(0, 2), dictionary.centroids)
    triangle = functional.relu(distances.mean(1, keepdim=True) - distances)
    maps = triangle.view(len(images), room, room, -1)
    half = (room + 1) // 2
    quadrants = [maps[:, r, c].sum((1, 2)) for r in _halves(half) for c in _halves(half)]
    return torch.cat(quadrants, dim=1)


def _halves(half: int) -> tuple[slice, slice]:
    return slice(None, half), slice(half, None)


def standardise(train: F32, *others: F32) -> None:
    """All by mean and spread of `train`, in place, some columns at a time."""
    for start in range(0, train.shape[1], COLUMNS):
        part = slice(start, start + COLUMNS)
        mean = train[:, part].mean(0, dtype=np.float64)
        spread = np.sqrt(train[:, part].var(0, ddof=1, dtype=np.float64) + SPREAD_EPS)
        for rows in (train, *others):
            rows[:, part] = (rows[:, part] - mean) / spread
