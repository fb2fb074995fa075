"""Reading ahead: the same batches however they are read, each byte once, stragglers asked for again."""

import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcgan_dist.stream.feed import Feed
from dcgan_dist.stream.plan import Plan, lanes
from shards import ShardsError
from shards.dataset.adopt import reindex
from shards.dataset.index import load
from shards.dataset.reader import Blocks
from shards.storage import store
from tests.numbered import build_numbers, in_memory, numbers

SAMPLES, BATCH = 330, 16


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """By samples of a block: the same pictures, in shards of uneven size, at `memory://`."""
    folder = tmp_path_factory.mktemp("numbers")
    found = {}
    for block in (1, 7, 40):
        url = build_numbers(folder / str(block), SAMPLES, shard=70, block=block)
        found[block] = in_memory(url, f"{folder.name}-{block}")
    return found


def blocks_of(url: str) -> Blocks:
    return Blocks(url, load(url))


def plan_of(blocks: Blocks, *, seed: int = 3, batch: int = BATCH) -> Plan:
    return Plan(blocks.kept_counts, batch_images=batch, seed=seed)


def batches(feed: Feed, steps: int) -> np.ndarray:
    with feed:
        return np.stack([numbers(feed.next_batch()) for _ in range(steps)])


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ranks_threads_windows_and_resuming_change_nothing(urls: dict[int, str], data: st.DataObject) -> None:
    blocks = blocks_of(urls[data.draw(st.sampled_from(sorted(urls)))])
    batch = data.draw(st.sampled_from([1, 2, 6, 16, 48]))
    plan = plan_of(blocks, seed=data.draw(st.integers(0, 99)), batch=batch)
    steps = plan.steps_per_epoch + data.draw(st.integers(0, 3))
    ranks = data.draw(st.sampled_from([n for n in range(1, 17) if batch % n == 0]))
    first = data.draw(st.integers(0, steps - 1))
    ways = {
        "threads": data.draw(st.integers(1, 4)),
        "requests": data.draw(st.integers(1, 8)),
        "prefetch_bytes": data.draw(st.sampled_from([0, 5000, 10**6])),
    }
    whole = expected(plan, blocks, steps)
    parts = [
        Feed(blocks, plan, lanes=lanes(r, ranks, batch), first_step=first, stop_step=steps, **ways)
        for r in range(ranks)
    ]
    found = np.concatenate([batches(feed, steps - first) for feed in parts], axis=1)
    assert np.array_equal(found, whole[first:])


def expected(plan: Plan, blocks: Blocks, steps: int) -> np.ndarray:
    """The sample of every step and lane, worked out one by one."""
    starts = np.concatenate(([0], np.cumsum(plan.counts)))
    table = np.full((steps, plan.batch_images), -1)
    for epoch in range(-(-steps // plan.steps_per_epoch)):
        for span in plan.epoch(epoch).spans(range(plan.batch_images), first_step=0):
            for i, sample in enumerate(span.samples.tolist()):
                step = epoch * plan.steps_per_epoch + span.first + i
                if step < steps:
                    table[step, span.lane] = starts[span.block] + sample
    return table


def test_every_byte_is_read_once_and_neighbours_together(urls: dict[int, str]) -> None:
    blocks = blocks_of(urls[7])
    plan = plan_of(blocks)
    before = store.counters.snapshot()
    batches(Feed(blocks, plan, lanes=range(BATCH), stop_step=plan.steps_per_epoch), plan.steps_per_epoch)
    asked = store.counters.snapshot() - before
    needed = sorted({span.block for span in plan.epoch(0).spans(range(BATCH), first_step=0)})
    assert asked.read_bytes == sum(int(blocks.lengths[block]) for block in needed)
    # All is wanted soon, so that a read ends only where a shard does, or where a block is left out.
    shards = [blocks.place(block).shard for block in needed]
    runs = 1 + sum(
        b - a > 1 or s != t for a, b, s, t in zip(needed, needed[1:], shards, shards[1:], strict=False)
    )
    assert asked.requests == runs


def test_far_neighbours_are_not_waited_for(urls: dict[int, str]) -> None:
    blocks = blocks_of(urls[7])
    plan = plan_of(blocks)
    before = store.counters.snapshot()
    feed = Feed(blocks, plan, lanes=range(BATCH), stop_step=plan.steps_per_epoch, prefetch_bytes=0)
    batches(feed, plan.steps_per_epoch)
    asked = store.counters.snapshot() - before
    # A block that the border of two lanes cuts is read twice, if they need it at different times.
    assert len(blocks) <= asked.requests <= len(blocks) + 2 * BATCH


def stall(monkeypatch: pytest.MonkeyPatch, *, times: int) -> threading.Event:
    """The first reads hang until the event is set."""
    go_on, left, real = threading.Event(), [None] * times, store.read_range

    def read(*args: object, **settings: object) -> bytes:
        if left:
            left.pop()
            go_on.wait(60)
        return real(*args, **settings)

    monkeypatch.setattr(store, "read_range", read)
    return go_on


def test_a_straggler_is_asked_for_again(urls: dict[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = blocks_of(urls[7])
    plan = plan_of(blocks)
    whole = expected(plan, blocks, plan.steps_per_epoch)
    go_on = stall(monkeypatch, times=1)
    began = time.monotonic()
    feed = Feed(blocks, plan, lanes=range(BATCH), stop_step=plan.steps_per_epoch, prefetch_bytes=0)
    assert np.array_equal(batches(feed, plan.steps_per_epoch), whole)
    assert time.monotonic() - began < 55
    assert feed.fetch.hedges == 1
    go_on.set()


def test_leaving_does_not_wait_for_storage(urls: dict[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = blocks_of(urls[7])
    go_on = stall(monkeypatch, times=100)
    began = time.monotonic()
    with Feed(blocks, plan_of(blocks), lanes=range(BATCH)):
        time.sleep(0.2)
    assert time.monotonic() - began < 55
    go_on.set()


def test_a_long_wait_is_told_with_rank_step_and_place(
    urls: dict[int, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = blocks_of(urls[7])
    go_on = stall(monkeypatch, times=100)
    feed = Feed(blocks, plan_of(blocks), lanes=lanes(1, 2, BATCH), warn_after_seconds=0.1)
    threading.Timer(0.5, go_on.set).start()
    with caplog.at_level(logging.WARNING), feed:
        feed.next_batch()
        feed.next_batch()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("rank 1 has waited 0 s for step 0's data and goes on waiting: for bytes ")
    assert "shard-00000" in told
    assert "memory://" in told


def test_storage_that_fails_for_good_stops_the_run_and_is_no_damage(
    urls: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = blocks_of(urls[7])
    real = store.read_range

    def read(url: str, start: int, stop: int, **settings: object) -> bytes:
        if "shard-000002" in url:
            raise store.StoreError(f"cannot read bytes {start} to {stop} of {url}: gone (tried 5 times)")
        return real(url, start, stop, **settings)

    monkeypatch.setattr(store, "read_range", read)
    feed = Feed(blocks, plan_of(blocks), lanes=range(BATCH), max_bad_fraction=1.0)
    with pytest.raises(
        ShardsError, match=r"^cannot read bytes \d+ to \d+ of memory://\S+shard-000002.tar: gone"
    ):
        batches(feed, 200)
    assert feed.replaced == 0


@pytest.mark.parametrize("where", ["local", "memory"])
def test_a_damaged_block_is_found_among_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(store, "LIMITS", store.Limits(tries=2, first_wait_seconds=0.01))
    url = build_numbers(tmp_path / "set", SAMPLES, shard=70, block=7)
    blocks = blocks_of(url)
    place = blocks.place(12)
    path = Path(blocks.shard_url(place.shard))
    data = bytearray(path.read_bytes())
    data[place.start + 700] ^= 1
    path.write_bytes(data)
    if where == "memory":
        blocks = blocks_of(in_memory(url, f"damaged-{os.getpid()}"))
    plan = plan_of(blocks)
    steps = plan.steps_per_epoch
    feed = Feed(blocks, plan, lanes=range(BATCH), stop_step=steps, max_bad_fraction=0.1)
    found, whole = batches(feed, steps), expected(plan, blocks, steps)
    assert (found != whole).sum() == feed.replaced > 0
    assert set(whole[found != whole] // 70) == {1}
    # Block 12 begins at sample 14 of shard 1; the next block stands in, position by position.
    assert (found - whole)[found != whole].tolist() == [7] * feed.replaced


def test_a_sample_that_does_not_decode_is_named_once_and_its_neighbour_stands_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = build_numbers(tmp_path / "set", 40, shard=20, block=5, encoding="png")
    path = tmp_path / "set" / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT", data.index(b"IDAT", data.index(b"IDAT") + 4) + 4)  # of the third picture
    data[at + 6 : at + 12] = bytes(6)
    path.write_bytes(data)
    blocks = Blocks(url, reindex(url))
    plan = plan_of(blocks, batch=8)
    steps = 2 * plan.steps_per_epoch
    with caplog.at_level(logging.WARNING):
        feed = Feed(blocks, plan, lanes=range(8), stop_step=steps, max_bad_fraction=0.1)
        found, whole = batches(feed, steps), expected(plan, blocks, steps)
    assert whole[found != whole].tolist() == [22, 22]
    assert found[found != whole].tolist() == [23, 23]
    (told,) = [record.getMessage() for record in caplog.records]
    assert "sample 2 of shard-000001.tar is damaged (" in told


def test_a_removed_sample_never_stands_in(tmp_path: Path) -> None:
    url = build_numbers(tmp_path / "set", 20, shard=20, block=5, encoding="png")
    path = tmp_path / "set" / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT")
    data[at + 6 : at + 12] = bytes(6)
    path.write_bytes(data)
    index = reindex(url)
    shard = replace(index.shards[0], removed=(1, 2))
    blocks = Blocks(url, replace(index, shards=(shard,)))
    rows = np.empty((1, 4, 4, 3), np.uint8)
    (told,) = blocks.decode_into(0, blocks.read(0), np.array([0]), rows)
    assert numbers(rows).tolist() == [3]
    assert told.endswith("sample 3 of its block stands in")
