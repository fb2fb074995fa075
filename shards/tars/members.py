"""The files inside tars at any URL, found by one pass over their headers and read by byte range.

A tar that is cut, even at a member's border, is refused. Kept out: what the files are.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from shards.errors import MissingError
from shards.storage import store
from shards.tars.headers import walk

AHEAD_BYTES = 2**23
"""What is read at once from remote storage while the reads follow each other."""


class Member(NamedTuple):
    """A plain file in a tar: the bytes `[start, stop)` of it."""

    name: str
    start: int
    stop: int


def scan_tar(url: str, start: int, stop: int) -> Iterator[Member]:
    """The plain files of the tar in the bytes `[start, stop)` of `url`. Raises ShardsError."""
    reader = Reader()

    def read(first: int, last: int) -> bytes:
        return reader.read(url, start + first, start + last, size=stop)

    for member in walk(read, stop - start, where=url, whole=True):
        if not member.name.endswith("/"):
            yield Member(member.name, start + member.body, start + member.body + member.length)


def file_size(url: str) -> int:
    """The bytes of the file at `url`. Raises MissingError."""
    folder, _, name = url.rpartition("/")
    sizes = store.sizes(folder or ("/" if url.startswith("/") else "."))
    if name not in sizes:
        raise MissingError(f"{url} is not there; give the path or URL of the file itself")
    return sizes[name]


class Texts:
    """Many short texts in little memory."""

    def __init__(self, texts: Iterable[str]) -> None:
        joined, stops = bytearray(), [0]
        for text in texts:
            joined += text.encode()
            stops.append(len(joined))
        self._joined, self._stops = bytes(joined), np.array(stops, np.int64)

    def __len__(self) -> int:
        return len(self._stops) - 1

    def __getitem__(self, number: int) -> str:
        return self._joined[self._stops[number] : self._stops[number + 1]].decode()


class Reader:
    """Byte ranges of a few files; remote ones that follow each other are read ahead."""

    def __init__(self) -> None:
        self._url, self._start, self._data, self._last = "", 0, b"", 0

    def read(self, url: str, start: int, stop: int, *, size: int) -> bytes:
        """The bytes `[start, stop)` of `url`, a file of `size` bytes."""
        if store.is_local(url):
            return store.read_range(url, start, stop)
        inside = url == self._url and self._start <= start and stop <= self._start + len(self._data)
        if not inside:
            follows = url == self._url and 0 <= start - self._last < AHEAD_BYTES // 8
            end = min(size, max(stop, start + AHEAD_BYTES)) if follows else stop
            self._url, self._start, self._data = url, start, store.read_range(url, start, end)
        self._last = stop
        return self._data[start - self._start : stop - self._start]
