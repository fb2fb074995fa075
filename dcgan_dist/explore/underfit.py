"""Repeated noise textures across samples: the paper's sign of visual underfitting (section 4.1, figure 3).

Each picture is high-passed and cut into 8x8 blocks; a block's score is its largest correlation with the
block of another sample at the same place. The mean over blocks, less that of as many real pictures, is what
repeats.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from dcgan_dist import pictures
from dcgan_dist.run_folder.finding import Finding, Measure
from dcgan_dist.run_folder.opened_run import open_subject, steps_of, to_tensor
from shards.arrays import U8

BLOCK = 8
SAMPLES = 256
SHOWN = 50
FAINT = 0.01
"""Root mean square, of 2, below which a block is taken for flat and correlates with nothing."""


def repetition(images: U8) -> float:
    """Mean over samples and blocks of the largest correlation with another sample's block; 0 to 1."""
    blocks = _blocks(_high_pass(to_tensor(images)))  # (places, n, values)
    norm = blocks.norm(dim=2, keepdim=True)
    unit = blocks / norm.clamp(min=FAINT * math.sqrt(blocks.shape[2]))
    best = []
    for place in unit:
        alike = place @ place.T
        alike.fill_diagonal_(-1)
        best.append(alike.max(1).values)
    return float(torch.stack(best).mean())


def _high_pass(images: Tensor) -> Tensor:
    padded = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    return images - functional.avg_pool2d(padded, 5, 1)


def _blocks(images: Tensor) -> Tensor:
    """(n, 3, S, S) -> (places, n, 3 x 8 x 8)."""
    return functional.unfold(images, BLOCK, stride=BLOCK).permute(2, 0, 1)


def explore(run: str, *, data: str | None = None, seed: int = 0) -> Finding:
    """The same z at every checkpoint of the run, 10x5 of them shown."""
    measures, sheets, real = [], {}, math.nan
    for step in steps_of(run):
        subject = open_subject(run, step=step, data=data, seed=seed)
        if math.isnan(real):
            real = repetition(subject.real(SAMPLES))
            measures.append(Measure("repetition, real pictures", real))
        drawn = subject.draw(subject.noise(SAMPLES, "underfit"))
        measures.append(Measure(f"repetition less that of real, step {step}", repetition(drawn) - real))
        scale = 2 if subject.size <= 32 else 1
        grid = pictures.grid(drawn[:SHOWN], columns=10)
        sheets[f"Step {step}, the same z in each figure"] = pictures.png(grid, scale=scale)
    if len(sheets) > 2:  # the paper shows an early and the last epoch
        first, *_, last = sheets.items()
        sheets = dict((first, last))
    return Finding(
        "underfit",
        "Samples over training",
        "figures 2 and 3",
        measures,
        ["Above 0, textures repeat across samples more than in real pictures."],
        sheets,
    )
