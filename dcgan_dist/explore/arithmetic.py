"""Vector arithmetic (paper, section 6.3.2, figure 7): G(mean z of A - mean z of B + mean z of C), beside the
same on pixels, on single exemplars, and C alone.

Three exemplars a concept; eight neighbours of the result add uniform noise of +-0.25 to each number of z.
For uniform z the result of n exemplars has 1/sqrt(n) root mean square, and the prior 0.577: n = 3 fits it.
"""

import numpy as np
import torch
from torch import Tensor

from dcgan_dist import pictures
from dcgan_dist.judge import concept
from dcgan_dist.judge.concept import Concept
from dcgan_dist.judge.exemplars import Exemplars
from dcgan_dist.run_folder.finding import Finding, Measure, held, share
from dcgan_dist.run_folder.opened_run import Subject
from shards.arrays import U8

EXEMPLARS = 3
COUNTS = (1, 3, 10, 30)
DRAWS = 300
REACH = 0.25
GAIN = 0.08
SUCCESS = 0.75

DEFAULTS = [
    {"a": "glasses=1,female=0", "b": "glasses=0,female=0", "c": "glasses=0,female=1"},
    # With the bed on one side: means over windows to the left and to the right cancel.
    {
        "a": "window=1,bright=1,bed_side=left=1",
        "b": "window=0,bright=1,bed_side=left=1",
        "c": "window=0,bright=0,bed_side=left=1",
    },
]


def combine(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """(..., n, size) each -> (..., size): mean of A - mean of B + mean of C, as the paper, not clipped."""
    return a.mean(-2) - b.mean(-2) + c.mean(-2)


def renormalise(y: Tensor, rms: float) -> Tensor:
    """`y` (..., size) scaled to the prior's root mean square."""
    return y * rms / y.square().mean(-1, keepdim=True).sqrt()


def neighbours(y: Tensor, draw: torch.Generator) -> Tensor:
    """(size,) -> (9, size): `y` in the middle, eight around it."""
    around = y + (torch.rand(9, len(y), generator=draw) * 2 - 1) * REACH
    around[4] = y
    return around


def mix_pixels(images: dict[str, U8]) -> U8:
    """The control: (..., n, S, S, 3) each -> (..., S, S, 3), the same sum of pictures, clipped."""
    mean = {name: each.astype(np.float32).mean(-4) for name, each in images.items()}
    mixed = mean["a"] - mean["b"] + mean["c"]
    return np.asarray(mixed.round().clip(0, 255), np.uint8)


def take(exemplars: Exemplars, count: int, draws: int, *, seed: int) -> dict[str, Tensor]:
    """`count` different exemplars of each concept, `draws` times: (draws, count, size) by concept."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, z in exemplars.z.items():
        rows = torch.stack([torch.randperm(len(z), generator=draw)[:count] for _ in range(draws)])
        found[name] = z[rows]
    return found


def explore(subject: Subject, exemplars: Exemplars) -> Finding:
    """The figure with three exemplars each and, where the judge knows the concepts, how often it works."""
    figure = _figure(subject, exemplars)
    notes, measures = ["Exemplars picked by hand: the result is for the eye."], []
    if exemplars.judge is not None:
        a, b, c = (exemplars.concepts[name] for name in "abc")
        wanted = concept.combine(a, b, c)
        measures = _measures(subject, exemplars, wanted)
        notes = [
            f"({a}) - ({b}) + ({c}) should show: {wanted}. Success: the judge sees all of it.",
            f"{DRAWS} draws for each number of exemplars; the judge chose them among 4,000 samples.",
        ]
    caption = (
        "Columns: the exemplars of A, B and C, and below each G of their mean z; right: G(A - B + C) "
        "and eight neighbours; below it the same on pixels"
    )
    return Finding("arithmetic", "Vector arithmetic", "figure 7", measures, notes, {caption: figure})


def _success(subject: Subject, exemplars: Exemplars, images: U8, wanted: Concept, name: str) -> Measure:
    assert exemplars.judge is not None
    return share(name, int(wanted.holds(exemplars.judge.values(images)).sum()), len(images))


def _measures(subject: Subject, exemplars: Exemplars, wanted: Concept) -> list[Measure]:
    rms = float(subject.noise(1000, "rms").square().mean().sqrt())
    plain, scaled = [], []
    for count in COUNTS:
        y = combine(**take(exemplars, count, DRAWS, seed=subject.seed))
        name = f"success, {count} exemplar{'s' * (count > 1)}"
        plain.append(_success(subject, exemplars, subject.draw(y), wanted, name))
        y = renormalise(y, rms)
        scaled.append(_success(subject, exemplars, subject.draw(y), wanted, f"{name}, scaled to the prior"))
    gained = plain[1].value - plain[0].value
    return [
        *plain,
        Measure(
            "success of 3 less that of 1",
            gained,
            rule=f"above {GAIN:g}, and growing on to {COUNTS[-1]}",
            passed=gained > GAIN and plain[-1].value > plain[1].value,
        ),
        held(f"success of {COUNTS[-1]}", plain[-1].value, at_least=SUCCESS),
        *scaled,
        *_controls(subject, exemplars, wanted),
    ]


def _controls(subject: Subject, exemplars: Exemplars, wanted: Concept) -> list[Measure]:
    chosen = take(exemplars, EXEMPLARS, DRAWS, seed=subject.seed)
    flat = {name: subject.draw(z.flatten(0, 1)) for name, z in chosen.items()}
    stacked = {name: each.reshape(DRAWS, EXEMPLARS, *each.shape[1:]) for name, each in flat.items()}
    draw = torch.Generator().manual_seed(subject.seed)
    around = torch.cat([neighbours(y, draw) for y in combine(**chosen)[:50]])
    beside = torch.arange(len(around)) % 9 != 4
    alone = subject.draw(chosen["c"].mean(1))
    return [
        _success(subject, exemplars, subject.draw(around[beside]), wanted, "neighbours of results of 3"),
        _success(subject, exemplars, mix_pixels(stacked), wanted, "control: arithmetic on pixels of 3"),
        _success(subject, exemplars, alone, wanted, "control: C alone, mean z of 3"),
    ]


def _figure(subject: Subject, exemplars: Exemplars) -> bytes:
    chosen = {name: z[:EXEMPLARS] for name, z in exemplars.z.items()}
    rows, size = EXEMPLARS + 1, subject.size
    page = np.full((rows, 7, size, size, 3), 255, np.uint8)
    for column, name in enumerate("abc"):
        drawn = subject.draw(chosen[name])
        page[: len(drawn), column] = drawn
        page[EXEMPLARS, column] = subject.draw(chosen[name].mean(0, keepdim=True))[0]
    draw = torch.Generator().manual_seed(subject.seed)
    result = subject.draw(neighbours(combine(**chosen), draw))
    page[:3, 4:7] = result.reshape(3, 3, size, size, 3)
    page[EXEMPLARS, 5] = mix_pixels({name: subject.draw(z) for name, z in chosen.items()})
    return pictures.png(
        pictures.grid(page.reshape(-1, size, size, 3), columns=7), scale=2 if size <= 32 else 1
    )
