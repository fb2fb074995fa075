"""The experiment around `forget.py`: which pictures, which layer, what is judged, and the figure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dcgan_dist import pictures
from dcgan_dist.explore import forget
from dcgan_dist.judge.ground_truth import box_mask
from dcgan_dist.judge.judge import Judge, judge_of
from dcgan_dist.run_folder.finding import ExploreError, Finding, Measure, held
from dcgan_dist.run_folder.opened_run import Subject
from shards.arrays import U8

SAMPLES = 150
JUDGED = 800
RANDOM_DRAWS = 10
SHOWN = 10
IOU_SHARES = (0.05, 0.1, 0.2)
HELD_SHARE = 0.1
REMOVED = 0.9


@dataclass(frozen=True)
class Trial:
    """New samples as they are, and what the judge says of them."""

    subject: Subject
    judge: Judge
    target: str
    layer: int
    z: Tensor
    before: U8
    there: NDArray[np.bool_]
    outside: NDArray[np.bool_]

    def without(self, dropped: NDArray[np.bool_]) -> U8:
        """The samples again, with these maps set to zero."""
        with forget.without(self.subject.sampler.generator, self.layer, dropped):
            return self.subject.draw(self.z)

    def removed(self, dropped: NDArray[np.bool_]) -> tuple[float, float]:
        """Share of the pictures with the object that lose it, and mean |change| outside boxes, of 1."""
        after = self.without(dropped)
        still = self.judge.values(after)[self.target] > 0.5
        change = np.abs(after.astype(np.float32) - self.before).mean(3) / 255
        return float((~still[self.there]).mean()), float(change[self.outside].mean())


def explore(
    subject: Subject,
    *,
    target: str,
    layer: str | None = None,
    labels: dict[int, dict[str, Any]] | None = None,
) -> Finding:
    """Forget `target`, an object of the boxes. `labels` are boxes drawn by hand on the numbered sheet.

    Raises ExploreError where the object or layer is not there, or too few pictures show it.
    """
    g, judge = subject.sampler.generator, judge_of(subject)
    number = forget.layer_number(g, layer)
    z = subject.noise(SAMPLES, "sheet")
    boxes = _boxes(judge, target, subject.draw(z), labels)
    maps = forget.maps_of(g, z, number)
    rows, inside = forget.cells(maps, boxes, seed=subject.seed)
    weights = forget.logistic_weights(rows, inside)
    ious = forget.overlaps(maps, boxes, size=subject.size)
    trial = _trial(subject, judge, target, number)
    measures, positive = _measures(trial, weights, ious)
    found, chosen = sum(bool(each) for each in boxes), f"{g.net.g[number].channels}@{g.net.g[number].side}"
    count = Measure(f"boxes of {target} on {SAMPLES} samples (paper: 52)", sum(map(len, boxes)))
    dropped = Measure(f"maps dropped of {len(weights)} (paper: about 200 of 512)", float(positive.sum()))
    return Finding(
        "forget",
        f"Forgetting: {target}",
        "figure 6",
        [count, dropped, *measures],
        [
            f"Layer {chosen}; boxes {'drawn by hand' if labels else 'by the judge'} on {found} pictures.",
            "Removed: of new samples with it, the share that loses it. Change: mean, outside boxes, of 1.",
            "With half of all maps random ones alone can remove it: compare each row with its random one.",
        ],
        {
            f"Above: new samples. Below: the same z without the {int(positive.sum())} maps": _pairs(
                trial, positive
            )
        },
    )


def _boxes(
    judge: Judge, target: str, images: U8, labels: dict[int, dict[str, Any]] | None
) -> list[list[list[float]]]:
    if labels is None:
        return [[box] if box else [] for box in judge.boxes(images, target)]
    given = (labels.get(i, {}).get("boxes", {}).get(target) for i in range(len(images)))
    return [[box] if box else [] for box in given]


def _trial(subject: Subject, judge: Judge, target: str, layer: int) -> Trial:
    z = subject.noise(JUDGED, "forget/judged")
    before = subject.draw(z)
    boxes = judge.boxes(before, target)
    there = judge.values(before)[target] > 0.5
    if there.sum() < 20:
        raise ExploreError(
            f"only {int(there.sum())} of {JUDGED} samples show {target}; train longer, or forget "
            "something else"
        )
    outside = np.stack([~box_mask([box] if box else [], subject.size) for box in boxes])
    return Trial(subject, judge, target, layer, z, before, there, outside)


def _measures(
    trial: Trial, weights: NDArray[np.float64], ious: NDArray[np.float64]
) -> tuple[list[Measure], NDArray[np.bool_]]:
    """Of each way to choose the maps, and of as many random ones."""
    positive = weights > 0
    removed, change = trial.removed(positive)
    count = int(positive.sum())
    measures = [
        Measure(f"share of {JUDGED} new samples that show it", float(trial.there.mean())),
        held(f"removed by weights above 0 ({count} maps)", removed, at_least=REMOVED),
        Measure("  change outside", change),
        *_random(trial, count, "  as many random maps")[0],
    ]
    for share in IOU_SHARES:
        top = max(1, round(share * len(ious)))
        removed, change = trial.removed(forget.strongest(ious, top))
        rows, limit = _random(trial, top, "  as many random maps")
        held_to = share == HELD_SHARE
        rule = f"at least {REMOVED:g} and above random + 3 sd, {limit:.3f}" if held_to else ""
        passed = bool(removed >= REMOVED and removed > limit) if held_to else None
        measures.append(Measure(f"removed by IoU ranking ({top} maps)", removed, rule=rule, passed=passed))
        measures += [Measure("  change outside", change), *rows]
    return measures, positive


def _random(trial: Trial, count: int, name: str) -> tuple[list[Measure], float]:
    """Removed and changed by `count` random maps, and the mean + 3 sd of what they remove."""
    channels = trial.subject.sampler.generator.net.g[trial.layer].channels
    dice = np.random.default_rng(trial.subject.seed)
    draws = np.array(
        [trial.removed(forget.strongest(dice.random(channels), count)) for _ in range(RANDOM_DRAWS)]
    )
    mean, sd = draws.mean(0).tolist(), draws.std(0, ddof=1).tolist()
    rows = [
        Measure(f"{name}, {RANDOM_DRAWS} draws, mean and sd", mean[0], mean[0] - sd[0], mean[0] + sd[0]),
        Measure("  change outside, random", mean[1], mean[1] - sd[1], mean[1] + sd[1]),
    ]
    return rows, mean[0] + 3 * sd[0]


def _pairs(trial: Trial, dropped: NDArray[np.bool_]) -> bytes:
    rows = np.flatnonzero(trial.there)[:SHOWN]
    both = np.concatenate([trial.before[rows], trial.without(dropped)[rows]])
    return pictures.png(pictures.grid(both, columns=len(rows)), scale=2 if both.shape[1] <= 32 else 1)
