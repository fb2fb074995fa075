"""A fair sample has a bit of everything, whatever the order of the pictures, and reads only what it needs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dcgan_dist.ranks.world import World, join
from dcgan_dist.run_folder.opened_run import read_truth
from dcgan_dist.scores.suite import read_reals
from shards.dataset.index import Index, Shard, load
from shards.dataset.reader import Blocks
from shards.dataset.sampling import fair_places, priorities
from shards.storage import store
from tests.numbered import build_numbers, in_memory, numbers
from tests.processes import run_ranks

IMAGES, CLASS = 1200, 120  # ten classes, one after the other


@pytest.fixture(scope="module", params=["npy", "png"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp(request.param) / "set"
    return build_numbers(out, IMAGES, shard=130, block=8, encoding=request.param)


def classes(images: np.ndarray) -> set[int]:
    return set((numbers(images) // CLASS).tolist())


def test_reference_floor_and_explorations_see_every_class_of_a_sorted_set(url: str) -> None:
    blocks = Blocks(url, load(url))
    reals = read_reals(blocks, 64, World.alone())
    assert classes(reals.reference) == classes(reals.other) == set(range(10))
    assert not set(numbers(reals.reference)) & set(numbers(reals.other))
    truth, metas = read_truth(url, blocks.index, images=64)
    assert np.array_equal(truth, blocks.sample(64))
    assert [meta["name"] for meta in metas] == [str(number) for number in numbers(truth)]


def reals_on_ranks(url: str) -> list[list[int]]:
    with join(device="cpu", timeout_seconds=60) as here:
        reals = read_reals(Blocks(url, load(url)), 50, here)
        return [numbers(reals.reference).tolist(), numbers(reals.other).tolist()]


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_read_a_share_each_and_hold_the_same(url: str, ranks: int) -> None:
    alone = read_reals(Blocks(url, load(url)), 50, World.alone())
    expected = [numbers(alone.reference).tolist(), numbers(alone.other).tolist()]
    assert run_ranks(reals_on_ranks, ranks, url) == [expected] * ranks


def test_a_larger_sample_begins_with_the_smaller_and_all_is_everything_once(url: str) -> None:
    blocks = Blocks(url, load(url))
    whole = numbers(blocks.sample(5000))
    assert sorted(whole) == list(range(IMAGES))
    for images in (0, 1, 77, 600):
        assert numbers(blocks.sample(images)).tolist() == whole[:images].tolist()


def test_the_order_of_shards_is_nothing_and_removed_samples_never_come(url: str) -> None:
    index = load(url)
    chosen = {(index.shards[shard].name, place) for shard, place in located(index, fair_places(index, 300))}
    turned = dataclasses.replace(index, shards=index.shards[::-1])
    assert {
        (turned.shards[s].name, place) for s, place in located(turned, fair_places(turned, 300))
    } == chosen
    few = tuple(
        dataclasses.replace(shard, removed=tuple(range(0, shard.samples, 2))) for shard in index.shards
    )
    marked = dataclasses.replace(index, shards=few)
    assert all(place % 2 for _, place in located(marked, fair_places(marked, 5000)))
    served = numbers(Blocks(url, marked).sample(5000))
    assert len(served) == marked.kept
    assert {number % 130 % 2 for number in served.tolist()} == {1}


def located(index: Index, places: np.ndarray) -> list[tuple[int, int]]:
    starts = np.cumsum([0, *(shard.samples for shard in index.shards)])
    shards = np.searchsorted(starts, places, side="right") - 1
    return list(zip(shards.tolist(), (places - starts[shards]).tolist(), strict=True))


def test_only_the_blocks_of_the_sample_are_read(tmp_path: Path) -> None:
    url = in_memory(build_numbers(tmp_path / "set", IMAGES, shard=600, block=8), "few-blocks")
    blocks = Blocks(url, load(url))
    before = store.counters.snapshot().read_bytes
    blocks.sample(10)
    assert 0 < store.counters.snapshot().read_bytes - before <= 10 * int(blocks.lengths.max())


def test_a_sample_of_those_that_deduplication_kept_or_removed_is_fair() -> None:
    # Groups of 1 and of 40 equal pictures in turn; the first by the order of salt 0 of each group stays.
    index = Index(1, "npy", 8, 8, 0, (), (Shard("0.tar", 41_000, 10**9, "9" * 64),), "")
    place = np.arange(41_000)
    group, shards = place // 41 * 2 + (place % 41 > 0), np.zeros_like(place)
    order = np.argsort(priorities(index, shards, place))
    kept = np.zeros(len(place), bool)
    kept[order[np.unique(group[order], return_index=True)[1]]] = True
    assert (group[kept] % 2).mean() == 0.5
    removed = tuple(np.flatnonzero(~kept).tolist())
    marked = dataclasses.replace(index, shards=(dataclasses.replace(index.shards[0], removed=removed),))
    assert abs((group[fair_places(marked, 600)] % 2).mean() - 0.5) < 0.1


def test_places_of_millions_are_few_and_even() -> None:
    shards = tuple(Shard(f"{i}.tar", 10_000, 10**9, f"{i * 7919:064x}"[::-1]) for i in range(300))
    places = fair_places(Index(1, "npy", 64, 24, 0, (), shards, ""), 3000)
    assert len(set(places.tolist())) == 3000
    # Of 30 equal stretches each holds 100, give or take the chance of a fair draw.
    assert np.abs(np.bincount(places // 100_000, minlength=30) - 100).max() < 45
