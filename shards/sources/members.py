"""The files inside tars at any URL, found by one pass over their headers and read by byte range.

A tar that is cut, even at a member's border, is refused. Kept out: what the files are.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from shards import store
from shards.errors import MissingError, ShardsError
from shards.printable import storable

AHEAD_BYTES = 2**23
"""What is read at once from remote storage while the reads follow each other."""


class Member(NamedTuple):
    """A plain file in a tar: the bytes `[start, stop)` of it."""

    name: str
    start: int
    stop: int


class Window(io.RawIOBase):
    """The bytes `[start, stop)` of a file at any URL, as a file of its own."""

    def __init__(self, url: str, start: int, stop: int) -> None:
        self._url, self._start, self._size, self._at = url, start, stop - start, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to `offset`; returns where that is."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Fill `buffer` as far as there are bytes."""
        length = max(0, min(len(buffer), self._size - self._at))
        if length:
            start = self._start + self._at
            buffer[:length] = store.read_range(self._url, start, start + length)
            self._at += length
        return length


def scan_tar(url: str, start: int, stop: int) -> Iterator[Member]:
    """The plain files of the tar in the bytes `[start, stop)` of `url`. Raises ShardsError."""
    buffer_bytes = 2**13 if store.is_local(url) else AHEAD_BYTES
    stream = io.BufferedReader(Window(url, start, stop), buffer_bytes)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined] # it would keep all of them
                if member.isfile() and not member.sparse:
                    first = start + member.offset_data
                    yield Member(storable(member.name), first, first + member.size)
            # tarfile takes a missing or a damaged header for the end; the true end is a block of zeros.
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise ShardsError(f"{url} is cut at byte {start + tar.offset} or damaged there")
    except (tarfile.TarError, UnicodeError) as error:
        raise ShardsError(f"{url} is cut short or no tar ({error})") from error


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
