"""A file of any storage read from front to back in pieces, each once, with its sums.

Kept out: what the bytes mean.
"""

import hashlib

import xxhash

from shards.storage import store

PIECE_BYTES = 2**23


class Pieces:
    """The `length` bytes of the file `where`; those not yet released can be read, in any order."""

    def __init__(self, where: str, length: int) -> None:
        self._where, self._length = where, length
        self._kept, self._first = bytearray(), 0  # the bytes from `_first` on
        self._whole, self._block = hashlib.sha256(), xxhash.xxh3_64()

    def read(self, start: int, stop: int) -> bytes:
        """The bytes `[start, stop)`. Raises StoreError where they cannot be had."""
        assert self._first <= start <= stop <= self._length, (self._first, start, stop, self._length)
        while self._first + len(self._kept) < stop:
            self._pull()
        return bytes(self._kept[start - self._first : stop - self._first])

    def release(self, stop: int) -> None:
        """Let go of the bytes before `stop`."""
        while self._first < stop:
            if not self._kept:
                self._pull()
            length = min(len(self._kept), stop - self._first)
            with memoryview(self._kept) as kept:
                self._block.update(kept[:length])
            del self._kept[:length]
            self._first += length

    def block_sum(self) -> int:
        """The xxh3-64 of what was released since this was called last."""
        found = self._block.intdigest()
        self._block.reset()
        return found

    def sha256(self) -> str:
        """The sum of the whole file; what is left of it is read."""
        self.release(self._length)
        return self._whole.hexdigest()

    def _pull(self) -> None:
        start = self._first + len(self._kept)
        piece = store.read_range(self._where, start, min(start + PIECE_BYTES, self._length))
        self._whole.update(piece)
        self._kept += piece
