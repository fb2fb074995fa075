"""One shard, from source items to tar bytes: square, encode, pack, in memory.

A pure function of source, settings and shard number, so that any process may do it. Kept out: storage.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

from shards.blocks import BlockTable, cut_blocks
from shards.errors import ImageError, ShardsError
from shards.format import NPY_HEADER_BYTES, TAR_BLOCK, meta_json, pack_record, padding, tar_end
from shards.images import decode, encode, to_square
from shards.sources import Item, Source


@dataclass(frozen=True, slots=True)
class Cut:
    """How a dataset is cut: all that decides its bytes, the source apart."""

    size: int
    encoding: str
    quality: int | None
    """Of jpg and webp; None for the others, which lose nothing."""
    shard_images: int
    block_samples: int

    def settings(self) -> dict[str, Any]:
        """The cut as JSON, for the index."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Failure:
    """A source item that gave no sample."""

    position: int
    name: str
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class CutShard:
    """A shard in memory, before it is stored; `data` is empty where no item was usable."""

    data: bytes
    samples: int
    blocks: BlockTable
    failures: list[Failure] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """The checksum of the whole tar."""
        return hashlib.sha256(self.data).hexdigest()


def shard_name(shard: int) -> str:
    """The file name of shard number `shard`."""
    return f"shard-{shard:06d}.tar"


def cut_shard(source: Source, cut: Cut, *, shard: int) -> CutShard:
    """Shard number `shard`: the source's items [shard * P, (shard + 1) * P), less those that fail."""
    first = shard * cut.shard_images
    records: list[bytes] = []
    stops: list[int] = []
    failures: list[Failure] = []
    for position in range(first, min(first + cut.shard_images, source.samples)):
        name = f"position {position}"
        try:
            item = source.item(position)
            name = item.name
            record = pack_sample(item, cut, position=position, meta_bytes=source.meta_bytes)
        except (ImageError, OSError) as error:
            failures.append(_failure(position, name, error))
            continue
        records.append(record)
        stops.append(len(record) + (stops[-1] if stops else 0))
    if not records:
        return CutShard(b"", 0, cut_blocks(b"", [], cut.block_samples), failures)
    body = b"".join(records)
    blocks = cut_blocks(body, stops, cut.block_samples)
    return CutShard(body + tar_end(len(body)), len(records), blocks, failures)


def pack_sample(item: Item, cut: Cut, *, position: int, meta_bytes: int) -> bytes:
    """The tar bytes of one item: its image, then its JSON. Raises ImageError."""
    pixels = decode(item.image) if isinstance(item.image, bytes) else item.image
    image = encode(to_square(pixels, cut.size), cut.encoding, quality=cut.quality or 0)
    meta = dict(item.meta or {}) | {"name": item.name}
    if item.label is not None:
        meta["label"] = item.label
    # Full tar blocks, so that the last byte of a record is never a matter of the name's length.
    pad_bytes = meta_bytes + padding(meta_bytes) if cut.encoding == "npy" else 0
    text = meta_json(meta, pad_bytes=pad_bytes)
    if pad_bytes and len(text) > pad_bytes:
        raise ShardsError(f"{item.name}: its JSON takes {len(text)} bytes, the source promised {meta_bytes}")
    return pack_record(f"{position:08d}", [(cut.encoding, image), ("json", text)])


def record_bytes(size: int, meta_bytes: int) -> int:
    """The length of every record of an npy dataset."""
    image = NPY_HEADER_BYTES + size * size * 3
    return 2 * TAR_BLOCK + image + padding(image) + meta_bytes + padding(meta_bytes)


def _failure(position: int, name: str, error: ImageError | OSError) -> Failure:
    if isinstance(error, ImageError):
        return Failure(position, name, error.reason, str(error))
    return Failure(position, name, "unreadable", " ".join((error.strerror or str(error)).split()))
