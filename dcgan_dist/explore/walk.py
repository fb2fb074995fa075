"""Walking in the latent space (paper, section 6.1, figure 4), beside interpolation of pixels.

Ten rows of ten frames, one path: row r, frame j shows G(z_r + j/10 (z_(r+1) - z_r)), straight in z; the end
of a row is the next row's first frame. That is what the authors' figure measures: 11 points, 10 segments.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dcgan_dist import pictures
from dcgan_dist.ranks.world import World
from dcgan_dist.run_folder.finding import Finding, Measure
from dcgan_dist.run_folder.opened_run import Subject
from dcgan_dist.scores.swd import mean_swd
from shards.arrays import U8

POINTS = 11
FRAMES = 10
SEGMENTS = 64  # for the measures; the figure shows ten
MIDPOINTS = 512
SMOOTH = 0.3


def path(points: Tensor) -> Tensor:
    """(p, ...) -> ((p - 1) x 10, ...): frame j of segment r is r's point and j/10 of the way to the next."""
    share = torch.arange(FRAMES, dtype=points.dtype) / FRAMES
    share = share.view(1, FRAMES, *(1 for _ in points.shape[1:]))
    start, stop = points[:-1].unsqueeze(1), points[1:].unsqueeze(1)
    return (start + share * (stop - start)).flatten(0, 1)


def mix_pixels(images: U8) -> U8:
    """The control: the same path between pictures (p, S, S, 3) themselves."""
    mixed = path(torch.from_numpy(images).double()).round()
    return mixed.to(torch.uint8).numpy()


def largest_steps(frames: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each segment, its largest step between frames over the distance of its ends.

    `frames` (segments x 10, pixels) as `path` orders them, `ends` (segments, pixels) where each segment
    ends. 0.1 is an even walk, 1 a single jump. Ends that are equal give 0.
    """
    walked = frames.reshape(len(ends), FRAMES, -1)
    walked = np.concatenate([walked, ends[:, None]], axis=1)
    steps = np.linalg.norm(np.diff(walked, axis=1), axis=2).max(1)
    whole = np.linalg.norm(ends - walked[:, 0], axis=1)
    return np.asarray(np.divide(steps, whole, out=np.zeros_like(steps), where=whole > 0))


def explore(subject: Subject) -> Finding:
    """The walk, the comparison with pixels, how smooth it is, and how real its frames are."""
    points = subject.noise(POINTS, "walk")
    frames = subject.draw(path(points))
    # As the authors' comparison: the walk's rows 3 to 10 above, two rows of mixed pixels below.
    control = mix_pixels(subject.draw(points[2:5]))
    measures = _smoothness(subject) + _realism(subject)
    return Finding(
        "walk",
        "Walking in the latent space",
        "figure 4",
        measures,
        ["A step is a distance of pixels between neighbouring frames; 0.1 is an even walk, 1 a jump."],
        {
            "One path of 11 points, ten frames from each to the next, read row by row": _sheet(frames),
            "Above: rows 3 to 10 of the walk. Below: two rows of pixels mixed between pictures": _sheet(
                np.concatenate([frames[20:], control])
            ),
        },
    )


def _sheet(frames: U8) -> bytes:
    return pictures.png(pictures.grid(frames, columns=FRAMES), scale=2 if frames.shape[1] <= 32 else 1)


def _smoothness(subject: Subject) -> list[Measure]:
    points = subject.noise(SEGMENTS + 1, "walk/measured")
    frames = subject.draw(path(points)).reshape(SEGMENTS * FRAMES, -1) / 255
    last = subject.draw(points[-1:]).reshape(1, -1) / 255
    ends = np.concatenate([frames[FRAMES::FRAMES], last])
    found = largest_steps(frames, ends)
    low, middle, high = np.quantile(found, [0.05, 0.5, 0.95])
    worst = float(found.max())
    return [
        Measure(f"largest step, median of {SEGMENTS} segments", float(middle), float(low), float(high)),
        Measure("largest step, worst segment", worst, rule=f"at most {SMOOTH}", passed=worst <= SMOOTH),
    ]


def _realism(subject: Subject) -> list[Measure]:
    """How far points, middles of segments and middles of pixels are from real pictures."""
    z = subject.noise(2 * MIDPOINTS, "walk/realism")
    left, right = z[:MIDPOINTS], z[MIDPOINTS:]
    a, b = subject.draw(left), subject.draw(right)
    real = subject.real(2 * MIDPOINTS)
    count = min(MIDPOINTS, len(real) // 2)
    mixed = ((a.astype(np.uint16) + b) // 2).astype(np.uint8)
    sets = {
        "real against real": real[count : 2 * count],
        "samples": a[:count],
        "middles of walks": subject.draw((left + right) / 2)[:count],
        "middles of pixels (control)": mixed[:count],
    }
    distances = dict(zip(sets, mean_swd(real[:count], list(sets.values()), World.alone()), strict=True))
    measures = [Measure(f"SWD x 1000 from real: {name}", value) for name, value in distances.items()]
    walked, pixels = distances["middles of walks"], distances["middles of pixels (control)"]
    measures[2] = Measure(measures[2].name, walked, rule="below the control", passed=walked < pixels)
    return measures
