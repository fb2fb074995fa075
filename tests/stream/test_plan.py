"""The order of samples is a specification: pure integers, the same everywhere, for ever."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcgan_dist.stream.plan import Plan, lanes, permutation, permutations


def order(plan: Plan, epoch: int, rows: range, first_step: int = 0) -> np.ndarray:
    """(steps, rows, 2): block and sample served at each step from `first_step` on, for these lanes."""
    table = np.full((plan.steps_per_epoch - first_step, len(rows), 2), -1, np.int64)
    needed = -1
    for span in plan.epoch(epoch).spans(rows, first_step=first_step):
        assert span.first >= needed, "spans must come in the order in which they are needed"
        needed = span.first
        steps = slice(span.first - first_step, span.stop - first_step)
        assert (table[steps, span.lane - rows.start] == -1).all()
        table[steps, span.lane - rows.start, 0] = span.block
        table[steps, span.lane - rows.start, 1] = span.samples
    assert (table >= 0).all()
    return table


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    counts = draw(st.lists(st.integers(0, 9), min_size=1, max_size=60).filter(lambda c: sum(c) >= 1))
    batch = draw(st.integers(1, min(sum(counts), 48)))
    return Plan(np.array(counts, np.int64), batch_images=batch, seed=draw(st.integers(0, 2**40)))


@given(plans(), st.integers(0, 5), st.data())
@settings(max_examples=100, deadline=None)
def test_working_it_out_piece_by_piece_changes_nothing(plan: Plan, epoch: int, data: st.DataObject) -> None:
    whole = order(plan, epoch, range(plan.batch_images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dcgan_dist.stream.plan._SPANS", data.draw(st.integers(1, 64)))
        assert np.array_equal(order(plan, epoch, range(plan.batch_images)), whole)
        first = data.draw(st.integers(0, plan.steps_per_epoch))
        assert np.array_equal(order(plan, epoch, range(plan.batch_images), first), whole[first:])


def test_a_hundred_million_samples_are_planned_without_an_object_for_each() -> None:
    tracemalloc.start()
    plan = Plan(np.full(10**8 // 64, 64, np.int64), batch_images=1024, seed=0)
    spans = plan.epoch(0).spans(range(1024), first_step=plan.steps_per_epoch // 2)
    found = [next(spans) for _ in range(10_000)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    assert {span.lane for span in found[:1024]} == set(range(1024))


@given(plans(), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_every_sample_at_most_once_and_fewer_than_a_batch_left_out(plan: Plan, epoch: int) -> None:
    served = order(plan, epoch, range(plan.batch_images)).reshape(-1, 2)
    assert len(np.unique(served, axis=0)) == len(served)
    assert 0 <= plan.counts.sum() - len(served) < plan.batch_images
    assert (served[:, 1] < plan.counts[served[:, 0]]).all()


@given(plans(), st.integers(0, 3), st.data())
@settings(max_examples=100, deadline=None)
def test_ranks_and_resuming_change_nothing(plan: Plan, epoch: int, data: st.DataObject) -> None:
    whole = order(plan, epoch, range(plan.batch_images))
    divisors = [n for n in range(1, 17) if plan.batch_images % n == 0]
    ranks = data.draw(st.sampled_from(divisors))
    parts = [order(plan, epoch, lanes(rank, ranks, plan.batch_images)) for rank in range(ranks)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    first = data.draw(st.integers(0, plan.steps_per_epoch))
    assert np.array_equal(order(plan, epoch, range(plan.batch_images), first), whole[first:])


GOLDEN_PERMUTATION = [4, 0, 3, 5, 1, 6, 2, 7]
GOLDEN_ORDER = [
    [[1, 1], [0, 2], [3, 1], [2, 1]],
    [[1, 0], [0, 1], [3, 0], [4, 0]],
    [[1, 2], [0, 0], [3, 2], [2, 0]],
]


def test_golden_vectors_hold() -> None:
    assert permutation(8, 42, 0).tolist() == GOLDEN_PERMUTATION
    plan = Plan(np.array([3, 3, 2, 3, 1], np.int64), batch_images=4, seed=42)
    assert order(plan, 1, range(4)).tolist() == GOLDEN_ORDER


def test_many_permutations_at_once_are_those_of_each() -> None:
    counts, last = np.array([5, 0, 9, 1], np.int64), np.array([7, 3, 2**40, 0], np.int64)
    for row, count, block in zip(permutations(counts, last, 42, 3), counts, last, strict=True):
        assert row[:count].tolist() == permutation(int(count), 42, 3, int(block)).tolist()


def test_epochs_differ_and_leave_out_others() -> None:
    plan = Plan(np.full(20, 5, np.int64), batch_images=16, seed=0)
    first, second = (order(plan, epoch, range(16)) for epoch in (0, 1))
    assert not np.array_equal(first, second)
    seen = [{tuple(row) for row in served.reshape(-1, 2).tolist()} for served in (first, second)]
    assert seen[0] != seen[1]


def test_lanes_do_not_cross_into_new_blocks_all_at_once() -> None:
    plan = Plan(np.full(640, 10, np.int64), batch_images=64, seed=0)  # every lane is 10 whole blocks
    crossings = np.zeros(plan.steps_per_epoch, np.int64)
    for span in plan.epoch(0).spans(range(64), first_step=0):
        crossings[span.first] += 1
    assert crossings[1:].max() <= 2 * 64 // 10 + 2


def test_batches_of_class_sorted_data_are_as_mixed_as_random_ones() -> None:
    classes, per_class, block, batch = 10, 3000, 20, 128
    plan = Plan(np.full(classes * per_class // block, block, np.int64), batch_images=batch, seed=0)
    blocks = order(plan, 0, range(batch))[:, :, 0]
    labels = blocks * block // per_class  # sorted by class on disk
    counts = np.stack([(labels == label).sum(1) for label in range(classes)], axis=1)
    expected = batch / classes
    chi2 = ((counts - expected) ** 2 / expected).sum(1) / (classes - 1)
    assert chi2.mean() == pytest.approx(1, abs=0.1)
