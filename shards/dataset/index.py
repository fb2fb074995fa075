"""`index.json` and `blocks.npy`: what a dataset holds, so that no reader scans a tar.

The index is written last, so that a dataset with an index is whole. Everything read is checked, because
an index may come from anywhere. Kept out: reading the shards themselves.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.dataset import json_fields
from shards.dataset.blocks import (
    BlockTable,
    block_sum,
    lie_end_to_end,
    pack_blocks,
    parse_blocks,
    table_bytes,
)
from shards.errors import DamagedError, MissingError, ShardsError
from shards.storage import store
from shards.tars.records import ENCODINGS, PIXELS_OFFSET, TAR_BLOCK, compact_json

VERSION = 1
INDEX_NAME = "index.json"
BLOCKS_NAME = "blocks.npy"
IMAGE_SIZES = (4, 1024)
"""The smallest and the largest image side, in pixels."""

MAX_BLOCK_SAMPLES = 10**6

SAMPLES = "samples"
"""Encoding of a dataset whose samples may have any files, and pictures of any size; its `image_size` is 0."""

SHARD_NAME = r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*\.tar"
SHA256 = r"[0-9a-f]{64}"
TARS = r"[^\x00-\x1f]+"


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar: its `samples`, its whole length, and the positions in it that are not to be served."""

    name: str
    samples: int
    bytes: int
    sha256: str
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Index:
    """What a dataset holds. `record_bytes` is the stride of the records, 0 where they differ in length.

    `tars` is the folder or URL of the shards where they do not lie beside the index.
    """

    version: int
    encoding: str
    image_size: int
    block_samples: int
    record_bytes: int
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    blocks_sha256: str
    source: dict[str, Any] = field(default_factory=dict, hash=False)
    tars: str = ""

    def tars_at(self, url: str) -> str:
        """Where the shards are of the dataset whose index is at `url`."""
        return self.tars or url

    @property
    def samples(self) -> int:
        """The samples in the shards, removed ones too."""
        return sum(shard.samples for shard in self.shards)

    @property
    def kept(self) -> int:
        """The samples that may be served."""
        return self.samples - sum(len(shard.removed) for shard in self.shards)

    @property
    def bytes(self) -> int:
        """The bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return sum(-(-shard.samples // self.block_samples) for shard in self.shards)

    @property
    def identity(self) -> str:
        """Equal for datasets that serve the same pictures in the same order, whatever they are called."""
        order = [[shard.samples, shard.removed] for shard in self.shards]
        return _sha256(compact_json([self.blocks_sha256, self.image_size, self.block_samples, order]))

    def find(self, position: int) -> tuple[int, int, int]:
        """Where the sample at `position` of all is: its shard, its block in that, its place in the block."""
        starts = np.cumsum([0, *(shard.samples for shard in self.shards)])
        number = int(np.searchsorted(starts, position, side="right")) - 1
        return number, *divmod(position - int(starts[number]), self.block_samples)

    def block_counts(self) -> NDArray[np.int64]:
        """The samples of each block, in the order of `blocks.npy`; a shard's last may be short."""
        counts = np.full(self.blocks, self.block_samples, np.int64)
        row = 0
        for shard in self.shards:
            row += -(-shard.samples // self.block_samples)
            counts[row - 1] = (shard.samples - 1) % self.block_samples + 1
        return counts

    def block_starts(self) -> NDArray[np.int64]:
        """The row of each shard's first block, and the number of rows at the end."""
        blocks = [-(-shard.samples // self.block_samples) for shard in self.shards]
        return np.cumsum([0, *blocks], dtype=np.int64)


def load(url: str, *, pictures: bool = True) -> Index:
    """The index of the dataset at `url`. Raises ShardsError where there is none or it is not one.

    With `pictures` also where the dataset is not one of square pictures of one size.
    """
    where = store.join(url, INDEX_NAME)
    try:
        data = store.read_bytes(where, check=_is_whole, limit_bytes=store.SMALL_BYTES)
    except MissingError as error:
        raise _nothing_there(url) from error
    except DamagedError as error:
        raise ShardsError(
            f"{where} does not match the sum at its end; it is damaged or was edited; "
            f"run: python -m shards index {url}"
        ) from error
    index = parse(json_fields.json_object(data, where), where)
    if pictures and index.encoding == SAMPLES:
        raise ShardsError(
            f"{url} holds samples of any kind, not square pictures of one size; to make such a dataset of it "
            f"run: python -m shards build webdataset {index.tars_at(url)} OUT"
        )
    return index


def parse(fields: Mapping[str, Any], where: str) -> Index:
    """The index that `fields`, read from `where`, describe."""
    version = json_fields.whole_number(fields, "version", where)
    if version != VERSION:
        raise ShardsError(
            f"{where} has version {version}, this program reads {VERSION}; install the release it is of"
        )
    encoding = json_fields.text(fields, "encoding", where, pattern="|".join((*ENCODINGS, SAMPLES)))
    size_low, size_high = (0, 0) if encoding == SAMPLES else IMAGE_SIZES
    index = Index(
        version=version,
        encoding=encoding,
        image_size=json_fields.whole_number(fields, "image_size", where, low=size_low, high=size_high),
        block_samples=json_fields.whole_number(fields, "block_samples", where, low=1, high=MAX_BLOCK_SAMPLES),
        record_bytes=json_fields.whole_number(fields, "record_bytes", where),
        classes=json_fields.texts(fields, "classes", where),
        shards=tuple(parse_shard(entry, where) for entry in json_fields.items(fields, "shards", where)),
        blocks_sha256=json_fields.text(fields, "blocks_sha256", where, pattern=SHA256),
        source=json_fields.plain_object(fields, "source", where),
        tars=json_fields.text(fields, "tars", where, pattern=TARS) if "tars" in fields else "",
    )
    names = {shard.name for shard in index.shards}
    if not names or len(names) != len(index.shards):
        raise ShardsError(
            f"{where}: {len(index.shards)} shards with {len(names)} names; run: python -m shards index"
        )
    _check_record(index, where)
    return index


def _check_record(index: Index, where: str) -> None:
    """Only plain `.npy` pictures lie at one place in records of one length."""
    wrong = index.encoding != "npy" or index.record_bytes % TAR_BLOCK
    if index.record_bytes and (wrong or index.record_bytes < PIXELS_OFFSET + 3 * index.image_size**2):
        raise ShardsError(
            f"{where}: records of {index.record_bytes} bytes for {index.encoding} of {index.image_size} x "
            f"{index.image_size} pixels; the file is damaged or not ours"
        )


def parse_shard(entry: object, where: str) -> Shard:
    """The shard that `entry`, read from `where`, describes."""
    fields = json_fields.as_object(entry, "a shard", where)
    length = json_fields.whole_number(fields, "bytes", where)
    # A sample takes a header and a body, so this also bounds what a hostile index can claim.
    samples = json_fields.whole_number(
        fields, "samples", where, low=1, high=max(1, length // (2 * TAR_BLOCK))
    )
    return Shard(
        name=json_fields.text(fields, "name", where, pattern=SHARD_NAME),
        samples=samples,
        bytes=length,
        sha256=json_fields.text(fields, "sha256", where, pattern=SHA256),
        removed=json_fields.rising(fields, "removed", where, below=samples),
    )


def save(url: str, index: Index, blocks: BlockTable) -> Index:
    """Write `blocks.npy`, then `index.json`; returns the index with the table's checksum in it."""
    data = pack_blocks(blocks)
    assert len(blocks) == index.blocks, (len(blocks), index.blocks)
    index = replace(index, blocks_sha256=_sha256(data))
    store.write_bytes(store.join(url, BLOCKS_NAME), data)
    store.write_bytes(store.join(url, INDEX_NAME), dump(index))
    return index


def dump(index: Index) -> bytes:
    """The bytes of `index.json`: one shard a line, to be read and compared, and their sum at the end."""
    shards = [
        {"name": shard.name, "samples": shard.samples, "bytes": shard.bytes, "sha256": shard.sha256}
        | ({"removed": list(shard.removed)} if shard.removed else {})
        for shard in index.shards
    ]
    names = ["version", "encoding", "image_size", "block_samples", "record_bytes", "classes"]
    names += ["blocks_sha256", "source", *(["tars"] if index.tars else [])]
    lines = [compact_json(name) + b": " + compact_json(getattr(index, name)) for name in names]
    lines.append(b'"shards": [\n' + b",\n".join(compact_json(shard) for shard in shards) + b"\n]")
    text = b"{\n" + b",\n".join(lines) + b",\n"
    return text + b'"sum": "%016x"\n}\n' % block_sum(text)


def _is_whole(data: bytes) -> bool:
    """Whether the bytes before the sum at the end are those it was made of; true where there is none."""
    found = re.search(rb'"sum": "([0-9a-f]{16})"\n}\n\Z', data)
    return found is None or block_sum(data[: found.start()]) == int(found[1], 16)


def load_blocks(url: str, index: Index) -> BlockTable:
    """The block table. Raises ShardsError where it is not the one the index was written with."""
    where = store.join(url, BLOCKS_NAME)
    way_out = f"run: python -m shards index {url}"
    try:
        data = store.read_bytes(
            where,
            check=lambda data: _sha256(data) == index.blocks_sha256,
            limit_bytes=table_bytes(index.blocks),
        )
    except MissingError as error:
        raise ShardsError(f"{where} is not there though index.json is; {way_out}") from error
    except DamagedError as error:
        told = f"{where} is not the one index.json was written with (sha256 differs)"
        raise ShardsError(f"{told}; {way_out}") from error
    table = parse_blocks(data, index.blocks, where=where)
    even = not index.record_bytes or np.array_equal(table["bytes"], index.block_counts() * index.record_bytes)
    if not even or not lie_end_to_end(table, index.block_starts(), [shard.bytes for shard in index.shards]):
        raise ShardsError(f"{where}: the blocks do not lie end to end in their shards; {way_out}")
    return table


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check_listing(url: str, index: Index) -> None:
    """Compare names and lengths with one listing. Raises ShardsError at the first that differs."""
    tars = index.tars_at(url)
    found = store.sizes(tars)
    for shard in index.shards:
        if shard.name not in found:
            raise ShardsError(
                f"{tars}: {shard.name} is in index.json but not there; run: python -m shards verify {url}"
            )
        if found[shard.name] != shard.bytes:
            raise ShardsError(
                f"{tars}: {shard.name} has {found[shard.name]} bytes, index.json says {shard.bytes}; "
                f"run: python -m shards verify {url}"
            )


class NoDatasetError(ShardsError):
    """Nothing is there; the message ends in a command that draws a dataset, to which options may be added."""


def _nothing_there(url: str) -> ShardsError:
    """Why there is no index at `url`, and the command that makes one."""
    try:
        names = store.sizes(url)
    except MissingError:
        return NoDatasetError(
            f"{url} does not exist; to make a dataset run: python -m shards build rooms {url}"
        )
    if not names:
        return ShardsError(
            f"{url} is empty; to fill it run: python -m shards build rooms {url} --images 20000"
        )
    if not any(name.endswith(".tar") for name in names):
        return ShardsError(
            f"{url} has files but no tar shards; to make some run: python -m shards build folder {url} OUT"
        )
    return ShardsError(f"{url} has tars but no index.json; run: python -m shards index {url}")
