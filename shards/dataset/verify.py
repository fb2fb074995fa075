"""Read a dataset back: lengths, sha256 of each shard, sum of each block, and on request every picture.

Kept out: repair. Each finding is a line; shards are read block by block, several at once, never whole.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from shards.dataset import index as indexes
from shards.dataset.blocks import BlockTable, block_sum
from shards.dataset.index import Index, Shard
from shards.errors import ShardsError, StoreError
from shards.pictures.codec import check_stored, decode_into
from shards.storage import store
from shards.storage.in_order import THREADS, in_order
from shards.storage.pieces import PIECE_BYTES
from shards.tars import dali
from shards.tars.headers import samples_of, walk
from shards.tars.records import PIXELS_OFFSET, TAR_BLOCK, Record, npy_header, parse_records

MEMORY_BYTES = 2**28
"""Blocks under way are held whole; fewer are where they are large."""


@dataclass(slots=True)
class _Block:
    """A block as it was read: `data` is None where it could not be."""

    data: bytes | None
    findings: list[str]
    lines: list[str] = field(default_factory=list)
    """Of its samples in DALI's index, where there is one."""


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard to verify, its length in storage, and what to look at."""

    url: str
    index: Index
    shard: Shard
    length: int
    decode: bool
    dali: bool

    @property
    def where(self) -> str:
        return store.join(self.index.tars_at(self.url), self.shard.name)


def verify(
    url: str, *, decode: bool = False, on_shard: Callable[[Shard], object] | None = None
) -> Iterator[str]:
    """Everything that is wrong at `url`, a line each; nothing where all is well.

    Raises ShardsError where there is no index to hold the shards against. `on_shard` hears of each one read.
    """
    index = indexes.load(url, pictures=False)
    table, first = indexes.load_blocks(url, index), index.block_starts()
    found = store.sizes(index.tars_at(url))
    for number, shard in enumerate(index.shards):
        if shard.name not in found:
            yield f"{shard.name}: missing"
            continue
        if found[shard.name] != shard.bytes:
            yield f"{shard.name}: {found[shard.name]} bytes, the index says {shard.bytes}"
        has_dali = dali.index_name(shard.name) in found
        task = _Shard(url, index, shard, found[shard.name], decode, has_dali)
        yield from _verify_shard(task, table[first[number] : first[number + 1]], found)
        if on_shard:
            on_shard(shard)


def _verify_shard(task: _Shard, rows: BlockTable, found: Mapping[str, int]) -> Iterator[str]:
    shard, whole, stop = task.shard, hashlib.sha256(), 0
    lines: list[str] = []
    threads = max(1, min(THREADS, MEMORY_BYTES // max(1, int(rows["bytes"].max()))))
    with closing(
        in_order(lambda number: _verify_block(task, rows, number), range(len(rows)), threads=threads)
    ) as blocks:
        for block in blocks:
            yield from block.findings
            if block.data is None:
                return
            whole.update(block.data)
            stop += len(block.data)
            lines += block.lines
    try:
        for start in range(stop, shard.bytes, PIECE_BYTES):
            whole.update(store.read_range(task.where, start, min(start + PIECE_BYTES, shard.bytes)))
    except StoreError as error:
        yield f"{shard.name}: after the last block: {error}"
        return
    if whole.hexdigest() != shard.sha256:
        yield f"{shard.name}: its sha256 differs"
    elif task.dali:
        yield from _verify_dali(task, dali.pack(lines), found)


def _verify_block(task: _Shard, rows: BlockTable, number: int) -> _Block:
    row, name = rows[number], f"{task.shard.name}: block {number}"
    start, stop = int(row["offset"]), int(row["offset"]) + int(row["bytes"])
    if stop > task.length:
        return _Block(None, [f"{name}: cannot read bytes {start} to {stop}: there are {task.length}"])
    try:
        data = _read_block(task.where, start, stop, int(row["sum"]))
    except StoreError as error:
        return _Block(None, [f"{name}: {error}"])
    if block_sum(data) != int(row["sum"]):
        return _Block(data, [f"{name} (bytes {start} to {stop}): its sum differs"])
    samples = min(task.index.block_samples, task.shard.samples - number * task.index.block_samples)
    findings = list(_verify_pictures(data, name, task.index, samples)) if task.decode else []
    return _Block(data, findings, _dali_lines(data, name, start) if task.dali else [])


def _read_block(where: str, start: int, stop: int, wanted: int) -> bytes:
    """The bytes of a block; asked for twice where a bit may have flipped on its way."""
    data = store.read_range(where, start, stop)
    if block_sum(data) != wanted and not store.is_local(where):
        data = store.read_range(where, start, stop)
    return data


def _verify_pictures(data: bytes, where: str, index: Index, samples: int) -> Iterator[str]:
    out = np.empty((index.image_size, index.image_size, 3), np.uint8)
    try:
        records = parse_records(data, where=where)
    except ShardsError as error:
        yield str(error)
        return
    if len(records) != samples:
        yield f"{where}: {len(records)} samples, the index says {samples}"
    for record in records if index.encoding != indexes.SAMPLES else ():
        if problem := _picture_problem(record, out) or _stride_problem(record, data, index):
            yield f"{where}: sample {record.key}: {problem}"


def _picture_problem(record: Record, out: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str | None:
    image = record.image()
    if image is None:
        return "no image member"
    try:
        check_stored(bytes(image[1]), sums=True)
        decode_into(image[1], out)
    except ShardsError as error:
        return str(error)
    return None


def _stride_problem(record: Record, data: bytes, index: Index) -> str | None:
    """Whether the pixels lie elsewhere than where an index with a stride sends its readers."""
    if not index.record_bytes:
        return None
    header = data[record.start + TAR_BLOCK : record.start + PIXELS_OFFSET]
    if record.stop - record.start == index.record_bytes and header == npy_header(index.image_size):
        return None
    return f"its pixels are not where records of {index.record_bytes} bytes have them"


def _dali_lines(data: bytes, where: str, offset: int) -> list[str]:
    """The lines of a block in DALI's index; none where there can be none."""
    members = walk(lambda first, last: data[first:last], len(data), where=where)
    try:
        samples = [[file for file in sample if file.key] for sample in samples_of(members, where=where)]
        return [dali.sample_line(files, where=where, offset=offset) for files in samples if files]
    except ShardsError:
        return []


def _verify_dali(task: _Shard, wanted: bytes, found: Mapping[str, int]) -> Iterator[str]:
    name = dali.index_name(task.shard.name)
    if (
        found[name] != len(wanted)
        or store.read_bytes(store.join(task.index.tars_at(task.url), name)) != wanted
    ):
        yield f"{name}: not the index of {task.shard.name}; run: python -m shards index {task.url} --dali"
