"""A cache folder may hold what is not ours: none of it is removed, followed, or written over."""

import os
from pathlib import Path

import numpy as np
import pytest

from dcgan_dist.stream.cache import Cache
from shards import ShardsError
from shards.dataset.index import load
from shards.dataset.reader import Blocks
from tests.numbered import build_numbers

ENOUGH, LITTLE = 2**30, 200_000
FOREIGN = "0123456789abcdef" * 2
"""A name of the form of ours."""


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sets")
    return [build_numbers(folder / f"{size}", size, shard=50, block=5) for size in (150, 200)]


def use(folder: Path, url: str, limit_bytes: int = ENOUGH) -> Cache:
    """A cache that has been filled as far as its limit goes, and closed; its counts can be looked at."""
    blocks = Blocks(url, load(url))
    cache = Cache(str(folder), blocks, limit_bytes=limit_bytes)
    for block in range(len(blocks)):
        cache.put(block, blocks.read(block))
    for block in range(len(blocks)):
        found = cache.get(block)
        assert found is None or found == blocks.read(block)
    cache.close()
    return cache


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_foreign_files_stay_however_little_room_there_is(urls: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "parent" / "cache"
    for name in ("results", FOREIGN, "a" * 32, "123"):
        (cache / name).mkdir(parents=True)
        (cache / name / "thesis.txt").write_text("mine")
        (cache / name / "7").write_text("mine too")
        (cache / f"{name}.lock").touch()
    (cache / f"{'a' * 32}.lock").write_text("999999999999")
    for name in ("uv.lock", "poetry.lock", "...lock", ".lock", "1.lock"):
        (cache / name).write_text("version = 1\n")
    (tmp_path / "parent" / "other").write_text("mine")
    before = tree(tmp_path)
    for url in (*urls, *urls):
        use(cache, url, LITTLE)
    after = tree(tmp_path)
    assert {name: after.get(name) for name in before} == before


def test_of_a_dataset_of_ours_only_the_shards_are_removed(urls: list[str], tmp_path: Path) -> None:
    use(tmp_path, urls[0], LITTLE)
    (first,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (first / "notes.txt").write_text("mine")
    (first / "sub").mkdir()
    (first / "sub" / "1").write_text("mine")
    use(tmp_path, urls[1], LITTLE)
    assert not (tmp_path / f"{first.name}.lock").exists()
    assert sorted(path.name for path in first.rglob("*")) == ["1", "notes.txt", "sub"]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_link_in_the_place_of_a_shard_is_not_written_through(urls, tmp_path, link, caplog):
    use(tmp_path / "cache", urls[0])
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    target = tmp_path / "precious"
    target.write_bytes(b"mine" * 100_000)
    for shard in list(folder.iterdir()):
        shard.unlink()
        link(shard, target)
    cache = use(tmp_path / "cache", urls[0])
    assert target.read_bytes() == b"mine" * 100_000
    assert cache.hits == 0
    assert "no more is kept there" in caplog.text


def test_a_pipe_in_the_place_of_a_shard_makes_nobody_wait(urls: list[str], tmp_path: Path) -> None:
    use(tmp_path, urls[0])
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for shard in list(folder.iterdir()):
        shard.unlink()
        os.mkfifo(shard)
    assert use(tmp_path, urls[0]).hits == 0


def test_links_in_the_place_of_a_folder_or_a_lock_are_refused_in_one_line(urls, tmp_path):
    name = load(urls[0]).blocks_sha256[:32]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0").write_text("mine")
    for number, link in enumerate((name, f"{name}.lock", "all.lock")):
        cache = tmp_path / f"cache{number}"
        cache.mkdir()
        (cache / link).symlink_to(elsewhere if link == name else elsewhere / "0")
        with pytest.raises(
            ShardsError, match=r"^data\.cache_dir=\S+ cannot be used: .*; name another folder"
        ):
            use(cache, urls[0])
    assert tree(elsewhere) == {str(elsewhere / "0"): b"mine"}


def test_another_dataset_that_is_a_link_is_not_emptied(urls: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    use(cache, urls[0], LITTLE)
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    before = tree(tmp_path / "moved")
    assert before
    use(cache, urls[1], LITTLE)
    assert tree(tmp_path / "moved") == before


def test_a_lock_that_is_not_ours_is_not_written_over(urls: list[str], tmp_path: Path) -> None:
    lock = tmp_path / f"{load(urls[0]).blocks_sha256[:32]}.lock"
    lock.write_text("somebody's")
    with pytest.raises(ShardsError, match="its lock file for this dataset is not ours"):
        use(tmp_path, urls[0])
    assert lock.read_text() == "somebody's"


def test_what_is_ours_still_makes_room(urls: list[str], tmp_path: Path) -> None:
    use(tmp_path, urls[0], LITTLE)
    use(tmp_path, urls[1], LITTLE)
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert [path.name for path in folders] == [load(urls[1]).blocks_sha256[:32]]
    assert np.sum([path.stat().st_blocks * 512 for path in folders[0].iterdir()]) <= LITTLE
