"""Blocks kept on this machine: a bounded folder shared by every rank and run that is given it.

    CACHE_DIR/<dataset>/<shard number>   the shard with holes where blocks are not kept
    CACHE_DIR/<dataset>.lock             our mark, the bytes it may take; held while the dataset is in use

The folder may hold what is not ours: only shards beside such a mark are removed, and no link is followed.

Which blocks are kept is a function of the dataset and the bytes it may take, so ranks agree without a word,
and the limit holds without a count. Nothing is thrown out for another block: an epoch reads every block once,
and then no choice does better than to keep what is there. What is read back is held against its checksum: a
hole, a torn write or a flipped bit is a block that is not there. Kept out: where blocks come from.
"""

import errno
import fcntl
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG

import numpy as np

from dcgan_dist.stream.plan import permutation
from shards import ShardsError
from shards.dataset.reader import Blocks
from shards.tars.records import Buffer

PAGE_BYTES = 4096
LOCK_NAME = re.compile(r"[0-9a-f]{32}\.lock")
MARK = re.compile(rb"dcgan_dist cache ([0-9]{20})\n")
OLD_MARK = re.compile(rb"[0-9]{1,20}")
"""As it once was; believed of the own dataset alone, whose name nobody else gives."""

SHARD_NAME = re.compile("0|[1-9][0-9]*")
NO_LINK = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How everything here is opened; a pipe must not make anybody wait."""

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
        self._lock = self._place = -1
        try:
            self._lock, self._place, allowed = _join(self._folder, self._name, limit_bytes, int(costs.sum()))
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
        lock, place, self._lock, self._place = self._lock, self._place, -1, -1
        os.close(place)
        os.close(lock)

    def get(self, block: int) -> bytes | None:
        """The bytes of a block, or None where they are not here whole."""
        place, found = self._blocks.place(block), None
        if self._kept[block]:
            try:
                with self._opened(place.shard, os.O_RDONLY) as file:
                    data = _read(file, place.start, place.stop)
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
            with self._opened(place.shard, os.O_WRONLY | os.O_CREAT) as file:
                while data:
                    data = data[os.pwrite(file, data, place.stop - len(data)) :]
        except OSError as error:
            self._full = True
            log.warning("data.cache_dir=%s: %s; no more is kept there", self._folder, error.strerror)

    @property
    def _name(self) -> str:
        return self._blocks.index.blocks_sha256[:32]

    @contextmanager
    def _opened(self, shard: int, flags: int) -> Iterator[int]:
        """The file of a shard. Raises OSError where something else is in its place."""
        file = _open(str(shard), flags, at=self._place)
        try:
            if os.fstat(file).st_nlink > 1:
                raise OSError(errno.EMLINK, f"{shard} is a link to a file elsewhere")
            yield file
        finally:
            os.close(file)


def _page_costs(blocks: Blocks) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The bytes on disk of each block at most, for a page that two blocks share counts twice."""
    return (blocks.lengths.astype(np.int64) // PAGE_BYTES + 2) * PAGE_BYTES


def _open(path: str | Path, flags: int, *, at: int | None = None) -> int:
    """A plain file, in the folder `at`. Raises OSError for links, pipes and all else."""
    file = os.open(path, flags | NO_LINK, 0o644, dir_fd=at)
    if not S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, f"{Path(path).name} is no plain file")
    return file


def _read(file: int, start: int, stop: int) -> bytes:
    """The bytes `[start, stop)`, or fewer where the file ends before."""
    parts = []
    while start < stop and (part := os.pread(file, stop - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _join(folder: Path, name: str, limit_bytes: int, wanted_bytes: int) -> tuple[int, int, int]:
    """Say that this process uses dataset `name`.

    Returns its lock, which is held from now on, its folder, and the bytes allowed.
    """
    with suppress(FileExistsError):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "all.lock"):
        mine = _open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT)
        before = _marked_bytes(mine, own=True)
        place = _shards_folder(folder / name)
        if not _lock_now(mine):  # others use it: what they were allowed holds for us too
            fcntl.flock(mine, fcntl.LOCK_SH)
            return mine, place, before or 0
        allowed = _make_room(folder, name, limit_bytes, wanted_bytes)
        if before is not None and allowed < before:
            _remove_shards(place)
        os.pwrite(mine, b"dcgan_dist cache %020d\n" % allowed, 0)
        fcntl.flock(mine, fcntl.LOCK_SH)
        return mine, place, allowed


def _marked_bytes(lock: int, *, own: bool = False) -> int | None:
    """The bytes that a dataset may take, by our mark in its lock; None where the mark is not there.

    Raises OSError where the `own` lock holds anything else, which is then not to be written over.
    """
    text = os.pread(lock, 64, 0)
    if match := MARK.fullmatch(text):
        return int(match[1])
    if own and OLD_MARK.fullmatch(text):
        return int(text)
    if own and text:
        raise OSError(errno.EEXIST, "its lock file for this dataset is not ours")
    return None


def _shards_folder(path: Path) -> int:
    """The folder of a dataset, made where it is not there. Raises OSError where it is a link."""
    path.mkdir(exist_ok=True)
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"{path.name} in it is a link")
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | NO_LINK)


def _make_room(folder: Path, name: str, limit_bytes: int, wanted_bytes: int) -> int:
    """Remove datasets that nobody uses, the longest unused first, until there is room; the bytes allowed."""
    idle: list[tuple[float, Path, int]] = []
    room = limit_bytes
    for path in folder.glob("*.lock"):
        if path.stem == name or not LOCK_NAME.fullmatch(path.name):
            continue
        try:
            lock = _open(path, os.O_RDWR)
        except OSError:
            continue  # not one of ours
        try:
            takes = _marked_bytes(lock)
            if takes is not None:
                room -= takes
                if _lock_now(lock):
                    idle.append((os.fstat(lock).st_mtime, path, takes))
        finally:
            os.close(lock)
    for _, path, takes in sorted(idle):
        if room >= wanted_bytes:
            break
        _remove_dataset(path)
        room += takes
    return max(0, min(room, wanted_bytes))


def _remove_dataset(lock: Path) -> None:
    """Remove what the cache has made of a dataset; a folder that holds anything else stays."""
    folder = lock.with_suffix("")
    with suppress(OSError):
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | NO_LINK)
        try:
            _remove_shards(place)
        finally:
            os.close(place)
        folder.rmdir()
    lock.unlink()


def _remove_shards(place: int) -> None:
    """Remove the shards in an open folder, and nothing else."""
    with os.scandir(place) as entries:
        names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    for name in filter(SHARD_NAME.fullmatch, names):
        os.unlink(name, dir_fd=place)


def _lock_now(file: int) -> bool:
    """Whether this process got the file for itself alone."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = _open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
