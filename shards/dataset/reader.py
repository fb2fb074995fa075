"""The blocks of a dataset as a reader wants them: where each lies, its bytes checked, its pictures decoded.

Kept out: the order in which blocks are read, and when.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shards.arrays import I64, U8
from shards.dataset.blocks import block_sum
from shards.dataset.index import Index, load_blocks
from shards.dataset.sampling import fair_places
from shards.errors import DamagedError, ShardsError
from shards.pictures import codec
from shards.storage import store
from shards.storage.in_order import in_order
from shards.tars.records import PIXELS_OFFSET, Buffer, Files, files_in


class Place(NamedTuple):
    """Where the bytes of a block are."""

    shard: int
    start: int
    stop: int


class Blocks:
    """The blocks of the dataset at `url`, counted in storage order over all shards."""

    def __init__(self, url: str, index: Index) -> None:
        self.url, self.index = url, index
        self._shard_urls = [store.join(index.tars_at(url), shard.name) for shard in index.shards]
        table = load_blocks(url, index)
        self._offsets, self._lengths, self._sums = table["offset"], table["bytes"], table["sum"]
        self._first = index.block_starts().tolist()
        self._sizes = index.block_counts()
        self._gone = _removed(index, self._first) if index.kept < index.samples else None

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def kept_counts(self) -> I64:
        """The kept samples of each block."""
        return self._sizes if self._gone is None else self._sizes - self._gone.sum(1)

    @property
    def lengths(self) -> NDArray[np.uint32]:
        """The bytes of each block."""
        return self._lengths

    def place(self, block: int) -> Place:
        """Where a block lies."""
        start = int(self._offsets[block])
        return Place(bisect_right(self._first, block) - 1, start, start + int(self._lengths[block]))

    def shard_url(self, shard: int) -> str:
        """The URL of a shard."""
        return self._shard_urls[shard]

    def matches(self, block: int, data: Buffer) -> bool:
        """Whether `data` are the bytes that were written as this block."""
        return block_sum(data) == int(self._sums[block])

    def read(self, block: int) -> bytes:
        """The bytes of a block. Raises StoreError; DamagedError when they are not those that were written."""
        try:
            return self.read_run(range(block, block + 1))
        except DamagedError as error:
            raise DamagedError(f"{error}; run: python -m shards verify {self.url}") from error

    def read_run(self, run: range) -> bytes:
        """The bytes of neighbouring blocks of one shard, as one read; errors as those of `read`."""
        shard, start, _ = self.place(run[0])
        stop = self.place(run[-1]).stop
        return store.read_range(self.shard_url(shard), start, stop, check=partial(self._matches_run, run))

    def cut(self, run: range, data: bytes) -> list[memoryview]:
        """The bytes of each block of a run."""
        ends = np.cumsum(self._lengths[run.start : run.stop], dtype=np.int64).tolist()
        view = memoryview(data)
        return [view[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _matches_run(self, run: range, data: bytes) -> bool:
        return all(self.matches(block, part) for block, part in zip(run, self.cut(run, data), strict=True))

    def kept(self, block: int) -> I64:
        """The positions, among all samples of a block, of those that are kept."""
        if self._gone is None:
            return np.arange(self._sizes[block])
        return np.flatnonzero(~self._gone[block, : self._sizes[block]])

    def sample_name(self, block: int, position: int) -> str:
        """A sample as a user finds it: its shard, and its number in it from 0."""
        shard = bisect_right(self._first, block) - 1
        number = (block - self._first[shard]) * self.index.block_samples + position
        return f"sample {number} of {self.index.shards[shard].name}"

    def sample(self, images: int) -> U8:
        """A fair sample of those kept, at most `images`, uint8 (n, S, S, 3): `sampling.fair_places`."""
        return self.take(fair_places(self.index, images))

    def take(self, places: I64) -> U8:
        """The kept samples at these positions among all, uint8 (n, S, S, 3); damaged ones as `pictures`."""
        size = self.index.image_size
        found = np.empty((len(places), size, size, 3), np.uint8)

        def decode(block: int, data: bytes, positions: I64, rows: I64) -> None:
            wanted = np.searchsorted(self.kept(block), positions)
            self.decode_into(block, data, wanted, [found[row] for row in rows.tolist()])

        self.visit(places, decode)
        return found

    def visit(self, places: I64, use: Callable[[int, bytes, I64, I64], None]) -> None:
        """Read each block that holds one of these samples once, several blocks at a time.

        `use` gets the block, its bytes, the samples' positions in it, and their rows in `places`; it is
        called from several threads.
        """
        shards = np.cumsum([0, *(shard.samples for shard in self.index.shards)])
        number = np.searchsorted(shards, places, side="right") - 1
        ahead, position = np.divmod(places - shards[number], self.index.block_samples)
        blocks = np.asarray(self._first)[number] + ahead
        order = np.argsort(blocks, kind="stable")
        rows = np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1) if len(places) else []

        def work(rows: I64) -> None:
            block = int(blocks[rows[0]])
            use(block, self.read(block), position[rows], rows)

        with closing(in_order(work, rows)) as done:
            for _ in done:
                pass

    def at(self, places: Sequence[int]) -> dict[int, U8]:
        """The pictures at these positions among all samples, (S, S, 3) each; as `whole`."""
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place in places:
            block, position = self.find(place)
            wanted.setdefault(block, []).append((place, position))
        found: dict[int, U8] = {}
        for block, rows in wanted.items():
            pictures = self.whole(block)
            found |= {place: pictures[position] for place, position in rows}
        return found

    def find(self, place: int) -> tuple[int, int]:
        """The block of the sample at this position among all, and its position there."""
        shard, block, position = self.index.find(place)
        return self._first[shard] + block, position

    def whole(self, block: int) -> U8:
        """Every picture of a block, removed or not, uint8 (n, S, S, 3). Raises ShardsError if one is bad."""
        files = self.files(block, self.read(block))
        found = np.empty((len(files), self.index.image_size, self.index.image_size, 3), np.uint8)
        for position, row in enumerate(found):
            try:
                codec.decode_into(files.picture(position), row)
            except ShardsError as error:
                raise ShardsError(
                    f"{self.url}: {self.sample_name(block, position)}: {error}; "
                    f"run: python -m shards verify --decode {self.url}"
                ) from error
        return found

    def decode_into(self, block: int, data: Buffer, wanted: I64, rows: Iterable[U8]) -> list[str]:
        """Decode samples of a block into `rows`, (S, S, 3) each; a line for each replaced: `pictures`."""
        return list(self.pictures(block, data).into(wanted.tolist(), list(rows)).values())

    def files(self, block: int, data: Buffer) -> Files:
        """The files of every sample of a block, removed or not; errors as those of `pictures`."""
        found = files_in(data, where=self.url)
        if len(found) != self._sizes[block]:
            raise ShardsError(
                f"{self.url}: {self.sample_name(block, 0)}: its block has {len(found)} samples, the index "
                f"says {self._sizes[block]}; run: python -m shards index {self.url}"
            )
        return found

    def pictures(self, block: int, data: Buffer, files: Files | None = None) -> "Pictures":
        """The pictures of a block in its bytes, whose `files` may be known.

        Raises ShardsError where they are not those of the index.
        """
        kept = self.kept(block).tolist()
        if self.index.record_bytes:
            size = self.index.image_size
            shape, strides = (int(self._sizes[block]), 3 * size * size), (self.index.record_bytes, 1)
            return RawPictures(np.ndarray(shape, np.uint8, data, PIXELS_OFFSET, strides), kept)
        return EncodedPictures(files or self.files(block, data), kept, self, block)


class RawPictures:
    """The pictures of a block of raw records."""

    stand_ins: ClassVar[dict[int, int]] = {}

    def __init__(self, pixels: U8, kept: list[int]) -> None:
        self._pixels, self._kept = pixels, kept

    def into(self, wanted: Sequence[int], rows: Sequence[U8]) -> dict[int, str]:
        """Copy pictures, by their numbers among those kept, into `rows`, (S, S, 3) each."""
        for number, row in zip(wanted, rows, strict=True):
            row.reshape(-1)[:] = self._pixels[self._kept[number]]
        return {}


class EncodedPictures:
    """The pictures of a block as encoded files."""

    def __init__(self, files: Files, kept: list[int], blocks: Blocks, block: int) -> None:
        self._files, self._kept, self._blocks, self._block = files, kept, blocks, block
        self.stand_ins: dict[int, int] = {}
        """Which of those kept was decoded in place of a damaged one."""

    def into(self, wanted: Sequence[int], rows: Sequence[U8]) -> dict[int, str]:
        """Decode pictures, by their numbers among those kept, into `rows`, (S, S, 3) each.

        A damaged one is replaced by the next of the block that is kept and whole; returns a line that tells
        so, by the place in `wanted`. Raises ShardsError where none is.
        """
        told = {}
        for at, (number, row) in enumerate(zip(wanted, rows, strict=True)):
            if line := self._decode(number, row):
                told[at] = line
        return told

    def _decode(self, wanted: int, row: U8) -> str | None:
        position = self._kept[wanted]
        try:
            codec.decode_into(self._files.picture(position), row)
        except ShardsError as error:
            other = self._decode_next(wanted, row)
            return (
                f"{self._blocks.sample_name(self._block, position)} is damaged ({error}); sample {other} of "
                "its block stands in"
            )
        return None

    def _decode_next(self, wanted: int, row: U8) -> int:
        """Decode the next kept sample that can be; its position."""
        for ahead in range(1, len(self._kept)):
            instead = (wanted + ahead) % len(self._kept)
            try:
                codec.decode_into(self._files.picture(self._kept[instead]), row)
            except ShardsError:
                continue
            self.stand_ins[wanted] = instead
            return self._kept[instead]
        raise ShardsError(
            f"{self._blocks.url}: {self._blocks.sample_name(self._block, self._kept[wanted])}: no sample of "
            f"its block can be decoded; run: python -m shards verify --decode {self._blocks.url}"
        )


Pictures: TypeAlias = RawPictures | EncodedPictures


def _removed(index: Index, first: Sequence[int]) -> NDArray[np.bool_]:
    """(blocks, samples of the longest): which are marked as removed."""
    gone = np.zeros((index.blocks, int(index.block_counts().max())), np.bool_)
    for row, shard in zip(first, index.shards, strict=False):
        blocks, positions = np.divmod(np.asarray(shard.removed, np.int64), index.block_samples)
        gone[row + blocks, positions] = True
    return gone
