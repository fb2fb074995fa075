"""Who reads what, as pure integers: the order of samples is a function of (seed, epoch, step) and of
nothing else.

All blocks are permuted by (seed, epoch), the samples of each block are permuted, and all are laid end to
end. That line is cut by position into `batch_images` lanes of equal length; step t takes one sample of
every lane, and rank r of W serves lanes [r B/W, (r+1) B/W). The order therefore knows nothing of ranks,
threads or restarts: every sample is served at most once an epoch, fewer than `batch_images` are left out,
and all ranks take the same number of steps. Resuming at any step opens one block per lane.

Each lane starts a little further into its stretch than the one before and comes back to the beginning at
its end, so that the lanes do not all cross into a new block at the same step.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_MASK = 2**64 - 1


def mix(value: U64) -> U64:
    """A 64-bit bijective hash of every element (the finaliser of Steele, Lea and Flood 2014, SplitMix)."""
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def permutation(count: int, *key: int) -> I64:
    """The numbers 0..count-1 sorted by a hash of (key, number): a specification, not a library's stream."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = mix(state ^ np.uint64(part & _MASK))
    return np.argsort(mix(state ^ mix(np.arange(count, dtype=np.uint64))), kind="stable").astype(np.int64)


@dataclass(frozen=True)
class Span:
    """Consecutive steps of one lane that come from one block: at step `first + i` comes `samples[i]`.

    `samples` are positions within the block, counted among the samples that are kept.
    """

    first: int
    lane: int
    block: int
    samples: I64

    @property
    def stop(self) -> int:
        return self.first + len(self.samples)


@dataclass(frozen=True)
class Plan:
    """The order of a dataset: `counts` are the kept samples of each block, in storage order."""

    counts: I64
    batch_images: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return int(self.counts.sum()) // self.batch_images

    def epoch(self, number: int) -> "EpochPlan":
        order = permutation(len(self.counts), self.seed, number)
        starts = np.concatenate(([0], np.cumsum(self.counts[order])))
        return EpochPlan(self, number, order, starts)


@dataclass(frozen=True)
class EpochPlan:
    """One epoch: `order` lists the blocks as laid end to end, `starts` the position where each begins."""

    plan: Plan
    number: int
    order: I64
    starts: I64

    def spans(self, lanes: range, *, first_step: int) -> Iterator[Span]:
        """Spans of these lanes from `first_step` on, sorted by the step that needs them first."""
        walks = (self.lane(lane, first_step=first_step) for lane in lanes)
        return heapq.merge(*walks, key=lambda span: (span.first, span.lane))

    def lane(self, lane: int, *, first_step: int) -> Iterator[Span]:
        """Spans of one lane from `first_step` on."""
        plan, steps = self.plan, self.plan.steps_per_epoch
        start, phase = lane * steps, self._phase(lane)
        step = first_step
        while step < steps:
            position = start + (step + phase) % steps
            at = int(np.searchsorted(self.starts, position, side="right")) - 1
            block = int(self.order[at])
            begin = position - int(self.starts[at])
            # Up to the end of the block, of the lane's stretch, or of the lane's epoch, whichever comes
            # first.
            stretch_end = start + (steps if position >= start + phase else phase)
            end = min(int(self.starts[at + 1]), stretch_end) - int(self.starts[at])
            inner = permutation(int(plan.counts[block]), plan.seed, self.number, block)
            yield Span(step, lane, block, inner[begin:end])
            step += end - begin

    def _phase(self, lane: int) -> int:
        """How far into its stretch a lane starts: spread evenly over the longest block."""
        longest = int(self.plan.counts.max(initial=1))
        return (lane * longest // self.plan.batch_images) % self.plan.steps_per_epoch


def lanes(rank: int, ranks: int, batch_images: int) -> range:
    """The lanes, and rows of the global batch, that `rank` fills."""
    each = batch_images // ranks
    return range(rank * each, (rank + 1) * each)
