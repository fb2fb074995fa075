"""Batches are the samples that the plan names, whatever the encoding, the threads and the ranks."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dcgan_dist import train
from dcgan_dist.config.settings import Data
from dcgan_dist.stream.feed import Feed
from dcgan_dist.stream.plan import Plan, lanes
from shards.building.build import build
from shards.dataset import index as shard_index
from shards.dataset.reader import Blocks
from shards.sources.drawn.rooms import Rooms
from tests.processes import run_ranks
from tests.test_promises import words

IMAGES, SIZE, BATCH = 300, 16, 12


@pytest.fixture(scope="module", params=["npy", "png"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp(request.param))
    build(
        Rooms(IMAGES, size=SIZE),
        out,
        size=SIZE,
        encoding=request.param,
        shard_images=70,
        block_samples=8,
        workers=1,
    )
    return out


def batches(
    url: str, steps: int, *, rank: int = 0, ranks: int = 1, first: int = 0, threads: int = 2
) -> np.ndarray:
    """(steps, rows, S, S, 3) of one rank."""
    blocks = Blocks(url, shard_index.load(url))
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=1)
    rows = lanes(rank, ranks, BATCH)
    with Feed(blocks, plan, lanes=rows, first_step=first, threads=threads) as feed:
        return np.stack([feed.next_batch().copy() for _ in range(steps)])


def expected(url: str, steps: int) -> Iterator[np.ndarray]:
    """The same batches, one sample at a time."""
    blocks = Blocks(url, shard_index.load(url))
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=1)
    pictures = []
    for block, count in enumerate(blocks.kept_counts):
        rows = np.empty((count, SIZE, SIZE, 3), np.uint8)
        blocks.decode_into(block, blocks.read(block), np.arange(count), rows)
        pictures.append(rows)
    for step in range(steps):
        epoch, within = divmod(step, plan.steps_per_epoch)
        batch = np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
        for lane in range(BATCH):
            span = next(plan.epoch(epoch).spans(range(lane, lane + 1), first_step=within))
            batch[lane] = pictures[span.block][span.samples[0]]
        yield batch


def test_batches_follow_the_plan_over_epochs(url: str) -> None:
    steps = 60  # two epochs and a half
    assert np.array_equal(batches(url, steps), np.stack(list(expected(url, steps))))


def test_threads_ranks_and_resuming_change_nothing(url: str) -> None:
    whole = batches(url, 40)
    assert np.array_equal(batches(url, 40, threads=5), whole)
    parts = [batches(url, 40, rank=rank, ranks=3) for rank in range(3)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert np.array_equal(batches(url, 11, first=29), whole[29:])


def test_removed_samples_are_never_served(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = shard_index.load(url)
    gone = {0: (0, 1, 2, 3, 4, 5, 6, 7, 69), 2: (11,)}  # the whole first block among them
    from dataclasses import replace

    shards = tuple(replace(shard, removed=gone.get(i, ())) for i, shard in enumerate(index.shards))
    blocks = Blocks(url, replace(index, shards=shards))
    assert blocks.kept_counts.sum() == IMAGES - 10
    assert blocks.kept_counts[0] == 0
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=1)
    everything = Blocks(url, index)
    first = np.empty((8, SIZE, SIZE, 3), np.uint8)
    everything.decode_into(0, everything.read(0), np.arange(8), first)
    banned = {picture.tobytes() for picture in first}
    with Feed(blocks, plan, lanes=range(BATCH)) as feed:
        for _ in range(plan.steps_per_epoch):
            assert not banned & {picture.tobytes() for picture in feed.next_batch()}


@pytest.mark.parametrize("first", [0, 7])
def test_steps_that_need_no_pictures_decode_none_and_the_others_get_theirs(
    url: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = Blocks(url, shard_index.load(url))
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=1)
    decoded = []
    served = blocks.pictures

    def counted(*args: Any) -> Any:
        pictures = served(*args)

        def into(wanted: list[int], rows: list[np.ndarray]) -> Any:
            decoded.extend(wanted)
            return pictures.into(wanted, rows)

        return SimpleNamespace(into=into)

    monkeypatch.setattr(blocks, "pictures", counted)
    steps = 40
    feed = Feed(
        blocks, plan, lanes=range(BATCH), first_step=first, stop_step=first + steps, used=(False, True)
    )
    with feed:
        found = [feed.next_batch().copy() for _ in range(steps)]
    whole = batches(url, steps, first=first)
    for step in range(steps):
        if (first + step) % 2:
            assert np.array_equal(found[step], whole[step])
    assert len(decoded) == steps // 2 * BATCH


def damage(url: str, shard: str, at: int) -> None:
    path = Path(url) / shard
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)


def test_a_damaged_block_is_replaced_alike_on_every_number_of_ranks(tmp_path: Path) -> None:
    out = str(tmp_path / "set")
    build(
        Rooms(IMAGES, size=SIZE), out, size=SIZE, encoding="npy", shard_images=70, block_samples=8, workers=1
    )
    damage(out, "shard-000001.tar", 5000)
    blocks = Blocks(out, shard_index.load(out))
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=1)

    def read(rank: int, ranks: int) -> tuple[np.ndarray, int]:
        rows = lanes(rank, ranks, BATCH)
        with Feed(blocks, plan, lanes=rows, max_bad_fraction=0.1) as feed:
            found = np.stack([feed.next_batch().copy() for _ in range(plan.steps_per_epoch)])
            return found, feed.replaced

    whole, replaced = read(0, 1)
    assert replaced >= 8
    parts = [read(rank, 2) for rank in range(2)]
    assert np.array_equal(np.concatenate([part for part, _ in parts], axis=1), whole)
    assert sum(count for _, count in parts) == replaced


@pytest.mark.parametrize(("encoding", "ranks"), [("npy", 2), ("png", 4)])
def test_too_much_damage_stops_any_number_of_ranks_at_the_same_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str, ranks: int
) -> None:
    url = str(tmp_path / "set")
    build(
        Rooms(IMAGES, size=SIZE),
        url,
        size=SIZE,
        encoding=encoding,
        shard_images=70,
        block_samples=8,
        workers=1,
    )
    damage(url, "shard-000001.tar", 5000)

    def logged(count: int, limit: float) -> tuple[list[int], list[tuple[int, int]]]:
        run = tmp_path / f"run-{count}-{limit}"
        arguments = words(url, run, "--train.steps=18", f"--data.max_bad_fraction={limit}")
        codes = run_ranks(train.main, count, arguments) if count > 1 else [train.main(arguments)]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return codes, [(line["step"], line["data/replaced"]) for line in lines]

    codes, whole = logged(1, 0.5)
    assert (codes, whole[-1]) == ([0], (18, 8))
    codes, alone = logged(1, 4.9 / 288)
    assert codes == [2]
    assert alone == whole[: len(alone)]
    assert alone[-1][1] <= 4 < whole[len(alone)][1]
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        f"error: {url}: {whole[len(alone)][1]:g} damaged samples were replaced, more than the 4.9 of 288"
        in error
    )
    assert error.endswith(f" allows; run: python -m shards verify {url}")
    assert logged(ranks, 4.9 / 288) == ([2] * ranks, alone)


@pytest.mark.parametrize("encoding", ["npy", "jpg"])
def test_a_reader_takes_a_few_batches_and_a_block_of_every_lane(tmp_path: Path, encoding: str) -> None:
    url = str(tmp_path / "set")
    index = build(Rooms(30, size=64), url, size=64, encoding=encoding, workers=1)
    blocks = Blocks(url, index)
    plan = Plan(np.full(1000, index.block_samples, np.int64), batch_images=1024, seed=0)
    feed = Feed(blocks, plan, lanes=range(1024))
    batch_bytes = 1024 * 3 * 64 * 64
    assert feed.memory_bytes == 8 * batch_bytes + 1024 * blocks.lengths.max()
    assert feed.memory_bytes + Data().prefetch_bytes < 1e9


@pytest.mark.parametrize(
    ("rows", "size", "batches"), [(128, 64, 8), (1024, 64, 8), (512, 128, 5), (1024, 256, 3)]
)
def test_large_batches_are_held_few(tmp_path: Path, rows: int, size: int, batches: int) -> None:
    index = build(Rooms(30, size=size), str(tmp_path / "set"), size=size, workers=1)
    blocks = Blocks(str(tmp_path / "set"), index)
    plan = Plan(np.full(1000, index.block_samples, np.int64), batch_images=rows, seed=0)
    held = Feed(blocks, plan, lanes=range(rows)).memory_bytes - rows * int(blocks.lengths.max())
    assert held == batches * rows * size * size * 3
