"""A direction in z (paper, section 6.3.2, figure 8): the mean of four samples that look one way less the mean
of four that look the other, added to random z.

Five rows of eleven frames, z + t v with t from -1 to 1; the sample itself is in the middle.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dcgan_dist import pictures
from dcgan_dist.explore.arithmetic import take
from dcgan_dist.judge.exemplars import Exemplars
from dcgan_dist.judge.judge import Judge
from dcgan_dist.run_folder.finding import Finding, Measure
from dcgan_dist.run_folder.opened_run import Subject

EXEMPLARS = 4
ROWS = 5
FRAMES = 11
TURNS = 200
ORDERED = 0.9

DEFAULTS = [
    {"from": "yaw<-20", "to": "yaw>20"},
    {"from": "bed_side=left=1", "to": "bed_side=left=0"},
]


def frames(z: Tensor, v: Tensor) -> Tensor:
    """z and v (n, size) -> (n, 11, size): z + t v, t = -1 ... 1."""
    t = torch.linspace(-1, 1, FRAMES, dtype=z.dtype)
    return z.unsqueeze(1) + t[:, None] * v.unsqueeze(1)


def rank_correlation(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Spearman's of each row (n, k) with its order; equal values share their mean rank; 0 if all are."""
    before = (values[:, None, :] < values[:, :, None]).sum(2)
    equal = (values[:, None, :] == values[:, :, None]).sum(2)
    ranks = before + (equal - 1) / 2
    ranks -= ranks.mean(1, keepdims=True)
    order = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    spread = np.sqrt((ranks**2).sum(1) * (order**2).sum())
    return np.asarray((ranks * order).sum(1) / np.where(spread > 0, spread, 1))


def direction(operator: str, value: float) -> int:
    """1 where a condition asks for more of its attribute, -1 where it asks for less."""
    return -1 if operator == "<" or (operator, value) == ("=", 0.0) else 1


def explore(subject: Subject, exemplars: Exemplars) -> Finding:
    """The figure and, where the judge knows what turns, how steadily it does and what else changes."""
    v = exemplars.z["to"][:EXEMPLARS].mean(0) - exemplars.z["from"][:EXEMPLARS].mean(0)
    z = subject.noise(ROWS, "turn")
    sheet = subject.draw(frames(z, v.expand(ROWS, -1)).flatten(0, 1))
    measures: list[Measure] = []
    notes = ["Vector from samples picked by hand: the result is for the eye."]
    if exemplars.judge is not None:
        name = next(iter(exemplars.concepts["to"].rules))
        measures = _measures(subject, exemplars, exemplars.judge, name)
        notes = [
            f"From ({exemplars.concepts['from']}) to ({exemplars.concepts['to']}), {EXEMPLARS} each side.",
            f"{TURNS} random z, each with a vector of its own. Kept: as judged in the middle frame.",
            "Spearman: equal values share their mean rank; a row in which nothing changes counts as 0.",
        ]
    caption = "Each row: z + t v, t from -1 to 1; the random sample itself is in the middle"
    scale = 2 if subject.size <= 32 else 1
    page = pictures.png(pictures.grid(sheet, columns=FRAMES), scale=scale)
    return Finding("turn", "Turn vector", "figure 8", measures, notes, {caption: page})


def _measures(subject: Subject, exemplars: Exemplars, judge: Judge, name: str) -> list[Measure]:
    chosen = take(exemplars, EXEMPLARS, TURNS, seed=subject.seed)
    v = chosen["to"].mean(1) - chosen["from"].mean(1)
    z = subject.noise(TURNS, "turn/measured")
    # The control: as long a vector, its numbers shuffled.
    draw = torch.Generator().manual_seed(subject.seed)
    stray = v[:, torch.randperm(v.shape[1], generator=draw)]
    judged = {
        which: {
            attribute: values.reshape(TURNS, FRAMES)
            for attribute, values in judge.values(subject.draw(frames(z, way).flatten(0, 1))).items()
        }
        for which, way in {"turned": v, "stray": stray}.items()
    }
    sign = direction(*exemplars.concepts["to"].rules[name])
    order, astray = (sign * rank_correlation(judged[which][name]) for which in ("turned", "stray"))
    low, high = np.quantile(order, [0.05, 0.95])
    mean = float(order.mean())
    ends = judged["turned"][name]
    return [
        Measure(
            f"Spearman of {name} over {FRAMES} frames, mean",
            mean,
            float(low),
            float(high),
            rule=f"at least {ORDERED:g}",
            passed=mean >= ORDERED,
        ),
        Measure("  control: shuffled vector", float(astray.mean())),
        Measure("  control: shuffled vector, whichever way it goes", float(np.abs(astray).mean())),
        Measure(f"{name}, mean at t = -1", float(ends[:, 0].mean())),
        Measure(f"{name}, mean at t = 1", float(ends[:, -1].mean())),
        *_kept(judge, judged["turned"], but=name),
    ]


def _kept(judge: Judge, judged: dict[str, NDArray[np.float32]], *, but: str) -> list[Measure]:
    """Of each other binary attribute, the share of frames in which it is as in the middle one."""
    found = []
    for attribute in judge.attributes:
        if attribute.binary and attribute.name != but:
            seen = judged[attribute.name] > 0.5
            same = seen == seen[:, FRAMES // 2 : FRAMES // 2 + 1]
            found.append(Measure(f"kept: {attribute.name}", float(same.mean())))
    return found
