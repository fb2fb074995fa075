"""Equal or near hashes to groups: exact by sorting, near by multi-index hashing (Norouzi et al., 2012).

Two hashes of 128 bits that differ in at most 4 agree on one fifth of them; at most 9, on one fifth but for a
single bit. Where near hashes are joined, colours must agree too: rooms that are alike but for a window or a
colour can be 4 bits apart, and one pair in a billion has equal codes. Kept out: where hashes come from, and
what becomes of groups.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shards.dataset.splitmix import mix

MAX_RADIUS = 8
PARTS = 5
COLOUR_LEVELS = 10
"""How far, of 255, the mean colours of near pictures may differ in any of 16 cells."""

PAIRS = 2**22
"""Candidate pairs looked at together."""

Words = NDArray[np.uint64]


def group(
    high: Words, low: Words, *, radius: int = 0, colours: NDArray[np.int16] | None = None
) -> NDArray[np.int64]:
    """The group of each hash, groups numbered in no given order.

    Equal hashes are in one group; with a `radius`, all that a chain of steps of at most so many bits joins.
    `colours`, (n, 48), where given, part pictures that differ in them: equal hashes from one of their group,
    near ones at each step.
    """
    assert 0 <= radius <= MAX_RADIUS
    order, first = _sort(high, low)
    groups = np.empty(len(order), np.int64)
    groups[order] = np.cumsum(first) - 1
    leaders = order[first]
    if colours is not None:
        groups, leaders = _part_colours(groups, leaders, colours)
    if radius:
        shades = None if colours is None else colours[leaders]
        groups = _join(high[leaders], low[leaders], radius, shades)[groups]
    return groups


def survivors(groups: NDArray[np.int64], priority: Words) -> NDArray[np.int64]:
    """The position of the survivor of each sample's group: that of the smallest priority in it."""
    last_first = np.argsort(priority, kind="stable")[::-1]
    best = np.empty(int(groups.max(initial=-1)) + 1, np.int64)
    best[groups[last_first]] = last_first  # of writes to one place, the last stays
    return best[groups]


def _sort(high: Words, low: Words) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """An order in which equal hashes are neighbours, and where in it each distinct one begins."""
    mixed = mix(high) ^ low
    order = np.argsort(mixed)
    ordered_high, ordered_low, mixed = high[order], low[order], mixed[order]
    first = np.ones(len(order), bool)
    first[1:] = (ordered_high[1:] != ordered_high[:-1]) | (ordered_low[1:] != ordered_low[:-1])
    if (first[1:] & (mixed[1:] == mixed[:-1])).any():  # different hashes that mix to the same: sort in full
        order = np.lexsort((low, high))
        first[1:] = (high[order[1:]] != high[order[:-1]]) | (low[order[1:]] != low[order[:-1]])
    return order, first


def _part_colours(
    groups: NDArray[np.int64], leaders: NDArray[np.int64], colours: NDArray[np.int16]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`groups` parted until all agree in colours with their group's leader, whatever the order of samples."""
    groups, leaders = groups.copy(), leaders.copy()
    rest = np.flatnonzero(np.bincount(groups)[groups] > 1)
    digests = _digests(colours[rest])
    while len(rest):
        order = np.lexsort((digests, groups[rest]))
        rest, digests = rest[order], digests[order]
        first = np.ones(len(rest), bool)
        first[1:] = groups[rest[1:]] != groups[rest[:-1]]
        chosen = rest[first]
        leaders[groups[chosen]] = chosen
        strange = ~_agree(colours[rest], colours[chosen[np.cumsum(first) - 1]])
        rest, digests = rest[strange], digests[strange]
        old, fresh = np.unique(groups[rest], return_inverse=True)
        groups[rest] = len(leaders) + fresh
        leaders = np.concatenate((leaders, np.empty_like(old)))
    return groups, leaders


def _digests(colours: NDArray[np.int16]) -> Words:
    """A number of each row, (n,)."""
    digests = np.zeros(len(colours), np.uint64)
    for words in np.ascontiguousarray(colours).view(np.uint64).T:
        digests = mix(digests ^ words)
    return digests


def _agree(one: NDArray[np.int16], other: NDArray[np.int16]) -> NDArray[np.bool_]:
    agree: NDArray[np.bool_] = np.abs(one - other).max(axis=1, initial=0) <= COLOUR_LEVELS
    return agree


def _join(high: Words, low: Words, radius: int, colours: NDArray[np.int16] | None) -> NDArray[np.int64]:
    """The group of each of the distinct hashes."""
    labels = np.arange(len(high))
    for start in range(PARTS):
        keys, bits = _part(high, low, start)
        for one, other in _candidates(keys, bits, flips=radius >= PARTS):
            apart = np.bitwise_count(high[one] ^ high[other]) + np.bitwise_count(low[one] ^ low[other])
            near = np.flatnonzero(apart <= radius)
            if colours is not None:
                near = near[_agree(colours[one[near]], colours[other[near]])]
            labels = _merge(labels, one[near], other[near])
    return labels


def _part(high: Words, low: Words, part: int) -> tuple[Words, int]:
    """A fifth of the 128 bits, as numbers, and how many bits that is."""
    start, stop = part * 128 // PARTS, (part + 1) * 128 // PARTS
    bits = stop - start
    if start >= 64:
        moved = high >> np.uint64(start - 64)
    elif stop <= 64:
        moved = low >> np.uint64(start)
    else:
        moved = (low >> np.uint64(start)) | (high << np.uint64(64 - start))
    return moved & np.uint64(2**bits - 1), bits


def _candidates(
    keys: Words, bits: int, *, flips: bool
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs whose keys are equal or, with `flips`, one bit apart; each pair once per key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    ends = np.searchsorted(ordered, ordered, side="right")
    yield from _pairs(order, np.arange(len(keys)), np.arange(1, len(keys) + 1), ends)
    for bit in range(bits if flips else 0):
        clear = np.flatnonzero((ordered >> np.uint64(bit)) & np.uint64(1) == 0)
        wanted = ordered[clear] | np.uint64(1 << bit)
        starts = np.searchsorted(ordered, wanted, side="left")
        yield from _pairs(order, clear, starts, np.searchsorted(ordered, wanted, side="right"))


def _pairs(
    order: NDArray[np.int64], ones: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each of `ones` with all places in `[starts, ends)`, at most about PAIRS at a time."""
    counts = ends - starts
    some = np.flatnonzero(counts > 0)
    ones, starts, counts = ones[some], starts[some], counts[some]
    totals = np.cumsum(counts)
    at = 0
    while at < len(ones):
        done = int(totals[at - 1]) if at else 0
        stop = max(at + 1, int(np.searchsorted(totals, done + PAIRS, side="right")))
        length = counts[at:stop]
        offsets = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        yield order[np.repeat(ones[at:stop], length)], order[np.repeat(starts[at:stop], length) + offsets]
        at = stop


def _merge(labels: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """`labels` with the groups of each pair joined; a label is the smallest place of its group."""
    while len(one):
        a, b = labels[one], labels[other]
        differ = a != b
        one, other, a, b = one[differ], other[differ], a[differ], b[differ]
        if not len(one):
            break
        np.minimum.at(labels, np.maximum(a, b), np.minimum(a, b))
        while (labels != (jumped := labels[labels])).any():
            labels = jumped
    return labels
