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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shards.arrays import I64, U64
from shards.dataset.splitmix import mix

_MASK = 2**64 - 1
_SPANS = 4096
"""About how many spans are worked out at once."""


def _fold(*key: int) -> U64:
    """A state, of shape (1,), that depends on every part of the key."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = mix(state ^ np.uint64(part & _MASK))
    return state


def permutation(count: int, *key: int) -> I64:
    """The numbers 0..count-1 sorted by a hash of (key, number): a specification, not a library's stream."""
    return np.argsort(mix(_fold(*key) ^ mix(np.arange(count, dtype=np.uint64))), kind="stable")


def permutations(counts: I64, last: I64, *key: int) -> I64:
    """Row i begins with `permutation(counts[i], *key, last[i])`; the rest of a shorter row is of no use."""
    numbers = np.arange(counts.max(initial=0), dtype=np.uint64)
    hashes = mix(mix(_fold(*key) ^ last.astype(np.uint64))[:, None] ^ mix(numbers))
    # Equal hashes keep their order, so that what lies beyond a short row comes last.
    hashes[numbers >= counts.astype(np.uint64)[:, None]] = _MASK
    return np.argsort(hashes, axis=1, kind="stable")


class Span(NamedTuple):
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
        """Spans of these lanes from `first_step` on, sorted by the step that needs them first, then lane."""
        steps, longest = self.plan.steps_per_epoch, int(self.plan.counts.max(initial=1))
        window = -(-_SPANS // len(lanes)) * longest
        for low in range(first_step, steps, window):
            high = min(low + window, steps)
            first, lane, at, begin, length = self._begun(lanes, low, high, open_all=low == first_step)
            blocks = self.order[at]
            inner = permutations(self.plan.counts[blocks], blocks, self.plan.seed, self.number)
            columns = (first, lane, blocks, begin, begin + length)
            for step, row, block, start, stop, samples in zip(
                *(c.tolist() for c in columns), inner, strict=True
            ):
                yield Span(step, row, block, samples[start:stop])

    def at(self, lane: int, step: int) -> tuple[int, int]:
        """What a lane takes at a step: the block, and the number in it among the samples that are kept."""
        steps = self.plan.steps_per_epoch
        phase = int(self._phases(np.array([lane]))[0])
        place = lane * steps + (phase + step) % steps
        at = int(np.searchsorted(self.starts, place, side="right")) - 1
        block = int(self.order[at])
        inner = permutation(int(self.plan.counts[block]), self.plan.seed, self.number, block)
        return block, int(inner[place - self.starts[at]])

    def _begun(self, lanes: range, low: int, high: int, *, open_all: bool) -> tuple[I64, ...]:
        """The spans that begin at a step in [low, high), and those that go on at `low` if `open_all`.

        Of each: first step, lane, place of its block in `order`, where in it to begin, length.
        """
        steps = self.plan.steps_per_epoch
        numbers = np.arange(lanes.start, lanes.stop)
        base, phase = numbers * steps, self._phases(numbers)
        # A lane's window of positions, in two parts where it comes round to the stretch's beginning.
        turn = (phase + low) % steps
        end = turn + (high - low)
        heads = self._starts_within(base + turn, base + np.minimum(end, steps))
        tails = self._starts_within(base, base + np.maximum(end - steps, 0))
        opened = (base + turn) if open_all else base[:0]
        cuts = np.unique(np.concatenate((heads, tails, base[(end > steps) | (turn == 0)], opened)))
        lane = cuts // steps
        offset, phase = cuts - lane * steps, self._phases(lane)
        first = (offset - phase) % steps
        after = np.searchsorted(self.starts, cuts, side="right")
        # A span ends where its block, the lane's stretch or the lane's epoch ends, whichever comes first.
        stop = np.minimum(self.starts[after], lane * steps + np.where(offset < phase, phase, steps))
        by_need = np.lexsort((lane, first))
        spans = (first, lane, after - 1, cuts - self.starts[after - 1], stop - cuts)
        return tuple(column[by_need] for column in spans)

    def _starts_within(self, low: I64, high: I64) -> I64:
        """The positions, in any of the ranges [low[i], high[i]), where a block begins."""
        begin, end = np.searchsorted(self.starts, low), np.searchsorted(self.starts, high)
        counts = np.maximum(end - begin, 0)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        found: I64 = self.starts[np.repeat(begin, counts) + within]
        return found

    def _phases(self, lanes: I64) -> I64:
        """How far into its stretch each lane starts: spread evenly over the longest block."""
        longest = int(self.plan.counts.max(initial=1))
        return (lanes * longest // self.plan.batch_images) % self.plan.steps_per_epoch


def lanes(rank: int, ranks: int, batch_images: int) -> range:
    """The lanes, and rows of the global batch, that `rank` fills."""
    each = batch_images // ranks
    return range(rank * each, (rank + 1) * each)
