"""Blocks kept on this machine: a bounded folder shared by every rank and run that is given it.

    CACHE_DIR/<dataset>/<shard number>   the shard with holes where blocks are not kept
    CACHE_DIR/<dataset>.lock             held while the dataset is in use; how many bytes it may take

Which blocks are kept is a function of the dataset and the bytes it may take, so ranks agree without a word,
and the limit holds without a count. Nothing is thrown out for another block: an epoch reads every block once,
and then no choice does better than to keep what is there. What is read back is held against its checksum: a
hole, a torn write or a flipped bit is a block that is not there. Kept out: where blocks come from.
"""

import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dcgan_dist.stream.plan import permutation
from shards import ShardsError, local
from shards.format import Buffer
from shards.reader import Blocks

PAGE_BYTES = 4096
log = logging.getLogger("dcgan_dist")


class Cache:
    """The cache of one dataset in `folder`, which holds at most `limit_bytes` over all its datasets.

    `hits` and `misses` count blocks asked for. Raises ShardsError where the folder cannot be used.
    """

    def __init__(self, folder: str, blocks: Blocks, *, limit_bytes: int) -> None:
        self.hits = self.misses = 0
        self._blocks, self._folder = blocks, Path(folder).absolute()
        self._counting = threading.Lock()
        self._full = False
        costs = _page_costs(blocks)
        try:
            self._lock, allowed = _join(self._folder, self._name, limit_bytes, int(costs.sum()))
        except OSError as error:
            raise ShardsError(
                f"data.cache_dir={folder} cannot be used: {error.strerror or error}; "
                "name another folder, or leave the setting out"
            ) from error
        order = permutation(len(blocks), 0)
        self._kept = np.zeros(len(blocks), np.bool_)
        self._kept[order] = np.cumsum(costs[order]) <= allowed

    def close(self) -> None:
        """Let others take the room, when they need it and no one else uses the dataset."""
        os.close(self._lock)

    def get(self, block: int) -> bytes | None:
        """The bytes of a block, or None where they are not here whole."""
        place, found = self._blocks.place(block), None
        if self._kept[block]:
            try:
                data = local.read_range(str(self._path(place.shard)), place.start, place.stop)
            except OSError:
                data = b""
            if len(data) == place.stop - place.start and self._blocks.matches(block, data):
                found = data
        with self._counting:
            self.hits += found is not None
            self.misses += found is None
        return found

    def put(self, block: int, data: Buffer) -> None:
        """Keep a block, if it is one to keep; the run goes on without where the disk does not want it."""
        if not self._kept[block] or self._full:
            return
        place = self._blocks.place(block)
        try:
            file = os.open(self._path(place.shard), os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                while data:
                    data = data[os.pwrite(file, data, place.stop - len(data)) :]
            finally:
                os.close(file)
        except OSError as error:
            self._full = True
            log.warning("data.cache_dir=%s: %s; no more is kept there", self._folder, error.strerror)

    @property
    def _name(self) -> str:
        return self._blocks.index.blocks_sha256[:32]

    def _path(self, shard: int) -> Path:
        return self._folder / self._name / str(shard)


def _page_costs(blocks: Blocks) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The bytes on disk of each block at most, for a page that two blocks share counts twice."""
    return (blocks.lengths.astype(np.int64) // PAGE_BYTES + 2) * PAGE_BYTES


def _join(folder: Path, name: str, limit_bytes: int, wanted_bytes: int) -> tuple[int, int]:
    """Say that this process uses dataset `name`; the lock it holds from now on, and the bytes allowed."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    with _locked(folder / "all.lock"):
        mine = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        before = int(os.read(mine, 20) or b"0")
        if not _lock_now(mine):  # others use it: what they were allowed holds for us too
            fcntl.flock(mine, fcntl.LOCK_SH)
            return mine, before
        allowed = _make_room(folder, name, limit_bytes, wanted_bytes)
        if allowed < before:
            shutil.rmtree(folder / name)
            (folder / name).mkdir()
        os.ftruncate(mine, 0)
        os.pwrite(mine, str(allowed).encode(), 0)
        fcntl.flock(mine, fcntl.LOCK_SH)
        return mine, allowed


def _make_room(folder: Path, name: str, limit_bytes: int, wanted_bytes: int) -> int:
    """Remove datasets that nobody uses, the longest unused first, until there is room; the bytes allowed."""
    idle: list[tuple[float, Path, int]] = []
    room = limit_bytes
    for path in folder.glob("*.lock"):
        if path.stem in ("all", name):
            continue
        with path.open("r+b") as lock:
            takes = int(lock.read(20) or b"0")
            room -= takes
            if _lock_now(lock.fileno()):
                idle.append((path.stat().st_mtime, path, takes))
    for _, path, takes in sorted(idle):
        if room >= wanted_bytes:
            break
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        path.unlink()
        room += takes
    return max(0, min(room, wanted_bytes))


def _lock_now(file: int) -> bool:
    """Whether this process got the file for itself alone."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
