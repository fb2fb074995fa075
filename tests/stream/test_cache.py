"""The cache on this machine: bounded, shared, never believed, and never in the way."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dcgan_dist.stream.cache import PAGE_BYTES, Cache
from dcgan_dist.stream.feed import Feed
from dcgan_dist.stream.plan import Plan
from shards import ShardsError
from shards.dataset.index import load
from shards.dataset.reader import Blocks
from shards.storage import store
from tests.numbered import build_numbers, in_memory, numbers

SAMPLES, BATCH, ENOUGH = 330, 16, 2**30


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cached")
    return in_memory(build_numbers(folder / "set", SAMPLES, shard=70, block=7), folder.name)


def epoch(url: str, cache: Cache | None) -> np.ndarray:
    """The numbers of every batch of an epoch."""
    blocks = Blocks(url, load(url))
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=3)
    steps = plan.steps_per_epoch
    with Feed(blocks, plan, lanes=range(BATCH), stop_step=steps, cache=cache) as feed:
        return np.stack([numbers(feed.next_batch()) for _ in range(steps)])


def open_cache(folder: Path, url: str, limit_bytes: int = ENOUGH) -> Cache:
    return Cache(str(folder), Blocks(url, load(url)), limit_bytes=limit_bytes)


def taken(folder: Path) -> int:
    """What the cached bytes take on disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.glob("*/*"))


def test_a_second_run_reads_no_block_from_storage(url: str, tmp_path: Path) -> None:
    whole = epoch(url, None)
    assert np.array_equal(epoch(url, open_cache(tmp_path, url)), whole)
    cache = open_cache(tmp_path, url)
    before = store.counters.snapshot()
    blocks = Blocks(url, load(url))
    opening = store.counters.snapshot() - before
    before = store.counters.snapshot()
    assert np.array_equal(epoch(url, cache), whole)
    assert (store.counters.snapshot() - before).read_bytes == opening.read_bytes
    assert cache.misses == 0
    assert cache.hits >= len(blocks) - 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_the_limit_holds_and_its_share_is_found_again(url: str, tmp_path: Path, share: float) -> None:
    blocks = Blocks(url, load(url))
    limit = int(share * len(blocks) * (blocks.lengths.max() + 2 * PAGE_BYTES))
    whole = epoch(url, None)
    assert np.array_equal(epoch(url, open_cache(tmp_path, url, limit)), whole)
    assert taken(tmp_path) <= limit
    cache = open_cache(tmp_path, url, limit)
    assert np.array_equal(epoch(url, cache), whole)
    assert cache.hits / (cache.hits + cache.misses) == pytest.approx(share, abs=0.1)


def test_what_is_damaged_in_the_cache_is_read_anew(url: str, tmp_path: Path) -> None:
    whole = epoch(url, open_cache(tmp_path, url))
    first, second, *_ = sorted(path for path in tmp_path.glob("*/*") if path.name.isdigit())
    data = bytearray(first.read_bytes())
    data[1000] ^= 1
    first.write_bytes(data)
    os.truncate(second, 20_000)
    cache = open_cache(tmp_path, url)
    assert np.array_equal(epoch(url, cache), whole)
    assert cache.misses > 0
    cache = open_cache(tmp_path, url)
    assert np.array_equal(epoch(url, cache), whole)
    assert cache.misses == 0


def test_ranks_and_runs_share_it_and_killed_ones_leave_nothing_wrong(tmp_path: Path) -> None:
    url = build_numbers(tmp_path / "set", SAMPLES, shard=70, block=7)
    command = [sys.executable, "-c", _FILL, str(tmp_path / "cache"), url]
    for _ in range(6):
        workers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        time.sleep(int.from_bytes(os.urandom(1)) / 5000)
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
    blocks = Blocks(url, load(url))
    cache = open_cache(tmp_path / "cache", url)
    found = [cache.get(block) for block in range(len(blocks))]
    assert sum(data is not None for data in found) > 0
    assert all(data is None or data == blocks.read(block) for block, data in enumerate(found))
    cache.close()


_FILL = """
import sys
from dcgan_dist.stream.cache import Cache
from shards.dataset.index import load
from shards.dataset.reader import Blocks
folder, url = sys.argv[1:]
blocks = Blocks(url, load(url))
cache = Cache(folder, blocks, limit_bytes=2**30)
print("ready", flush=True)
while True:
    for block in range(len(blocks)):
        cache.put(block, blocks.read(block))
"""


def test_an_idle_dataset_makes_room_and_one_in_use_does_not(url: str, tmp_path: Path) -> None:
    other = in_memory(build_numbers(tmp_path / "other", 200, shard=50, block=5), f"{tmp_path.name}-other")
    folder = tmp_path / "cache"
    limit = 330 * 14_000
    epoch(url, open_cache(folder, url, limit))  # closed by its feed
    in_use = open_cache(folder, other, limit)
    epoch(other, in_use)
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 2, "both fit"
    small = taken(folder) // 2
    busy = open_cache(folder, other, limit)
    squeezed = open_cache(folder, url, small)
    assert not squeezed._kept.all()
    squeezed.close()
    busy.close()
    alone = open_cache(folder, url, limit)
    assert alone._kept.all()
    alone.close()
    # Just room for one: the other is idle, and goes.
    need = int((Blocks(url, load(url)).lengths // PAGE_BYTES + 2).sum()) * PAGE_BYTES
    epoch(url, open_cache(folder, url, need))
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1
    assert taken(folder) <= need


def test_a_smaller_limit_is_kept_from_the_next_start_on(url: str, tmp_path: Path) -> None:
    epoch(url, open_cache(tmp_path, url))
    before = taken(tmp_path)
    epoch(url, open_cache(tmp_path, url, before // 3))
    assert taken(tmp_path) <= before // 3


def test_a_full_disk_is_told_once_and_the_run_goes_on(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(28, "No space left on device")

    whole = epoch(url, None)
    cache = open_cache(tmp_path, url)
    monkeypatch.setattr(os, "pwrite", refuse)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(epoch(url, cache), whole)
    told = {record.getMessage() for record in caplog.records}
    assert told == {f"data.cache_dir={tmp_path}: No space left on device; no more is kept there"}


def test_a_folder_that_cannot_be_used_is_one_line(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardsError, match=r"^data.cache_dir=\S+ cannot be used: Not a directory; name"):
        open_cache(tmp_path / "file", url)
