"""Are samples copies of the training pictures (paper, section 4.1)? Nearest neighbours among those and among
pictures that were held out.

A generator that copies nothing finds its nearest picture among the held-out ones as often as their number
says. Distances of pixels: blurred samples are near to everything, but to both sets alike.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dcgan_dist import pictures
from dcgan_dist.run_folder.finding import Finding, Measure
from dcgan_dist.run_folder.opened_run import Subject
from shards import ShardsError
from shards.arrays import U8
from shards.dataset.index import load as load_index
from shards.dataset.reader import Blocks

SAMPLES = 1000
MOST_REAL = 10000
SHOWN = 10
ALARM = 4.0  # standard errors


def nearest(samples: U8, pool: U8) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Of each sample the distance to its nearest in `pool` (root mean square, of 1) and its row."""
    a, b = _flat(samples), _flat(pool)
    distance, row = torch.full((len(a),), math.inf), torch.zeros(len(a), dtype=torch.int64)
    for start in range(0, len(b), 2000):
        found = torch.cdist(a, b[start : start + 2000]).min(1)
        closer = found.values < distance
        distance[closer], row[closer] = found.values[closer], found.indices[closer] + start
    return (distance / math.sqrt(a.shape[1])).numpy(), row.numpy()


def _flat(images: U8) -> Tensor:
    return torch.from_numpy(images).flatten(1).float() / 255


def excess(nearer: float, total: int, *, train: int, held_out: int) -> tuple[float, float]:
    """The share of samples nearest to a training picture that chance gives, and how many standard errors
    `nearer` of `total` lies above it."""
    chance = train / (train + held_out)
    return chance, (nearer / total - chance) / math.sqrt(chance * (1 - chance) / total)


def explore(subject: Subject, *, held_out: str) -> Finding:
    """Raises ShardsError where the held-out pictures are not there or of another size."""
    index = load_index(held_out)
    if index.image_size != subject.size:
        raise ShardsError(f"{held_out} has pictures of {index.image_size} pixels, not {subject.size}")
    if index.blocks_sha256 == subject.index.blocks_sha256:
        raise ShardsError(f"{held_out} is what the run was trained on; give pictures that it has not seen")
    fresh, train = Blocks(held_out, index).sample(MOST_REAL), subject.real(MOST_REAL)
    samples = subject.draw(subject.noise(SAMPLES, "neighbours"))
    (to_train, row), (to_fresh, fresh_row) = nearest(samples, train), nearest(samples, fresh)
    between = nearest(fresh[:SAMPLES], train)[0]
    # Pictures that lie in both sets are at equal distance: half a one each.
    nearer = float(((to_train < to_fresh) + (to_train == to_fresh) / 2).sum())
    chance, errors = excess(nearer, SAMPLES, train=len(train), held_out=len(fresh))
    measures = [
        Measure("nearest picture is a training one, share", nearer / SAMPLES),
        Measure(f"  by chance ({len(train)} training, {len(fresh)} held-out pictures)", chance),
        Measure("  standard errors above chance", errors, rule=f"below {ALARM:g}", passed=errors < ALARM),
        Measure(
            "distance to training, median over that of held-out to training",
            float(np.median(to_train) / np.median(between)),
        ),
    ]
    shown = np.argsort(to_train)[:SHOWN]
    page = np.concatenate([samples[shown], train[row[shown]], fresh[fresh_row[shown]]])
    caption = (
        "Above: the samples nearest to training. Middle: their nearest training picture. Below: held-out"
    )
    scale = 2 if subject.size <= 32 else 1
    return Finding(
        "neighbours",
        "Copies of training pictures",
        "section 4.1; the paper searches none",
        measures,
        ["Distances are of pixels, root mean square."],
        {caption: pictures.png(pictures.grid(page, columns=len(shown)), scale=scale)},
    )
