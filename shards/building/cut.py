"""One shard, from source items to tar bytes: square, encode, pack, in memory.

A pure function of source, settings and shard number, so that any process may do it. Kept out: storage.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

from shards.dataset.blocks import BlockTable, cut_blocks
from shards.errors import ImageError, ShardsError, StoreError
from shards.pictures.codec import decode, encode, to_square
from shards.pictures.cv2_resize import to_square_cv2
from shards.sources.base import Item, Source
from shards.storage.retries import one_line
from shards.tars.records import NPY_HEADER_BYTES, TAR_BLOCK, meta_json, pack_record, padding, tar_end

MISSING = "missing"
"""Why a file failed that was listed and is gone; it may be there again when the build goes on."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a dataset is cut: all that decides its bytes, the source apart."""

    size: int
    encoding: str
    quality: int | None
    """Of jpg and webp; None for the others, which lose nothing."""
    shard_images: int
    block_samples: int
    resize: str = "area"

    def settings(self) -> dict[str, Any]:
        """The cut as JSON, for the index; the usual way of resizing goes without saying."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("resize", "area")}


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
    """Shard number `shard`: the source's items [shard * P, (shard + 1) * P), less those that fail.

    Raises StoreError where the storage fails, which is no picture's fault.
    """
    first = shard * cut.shard_images
    records: list[bytes] = []
    stops: list[int] = []
    failures: list[Failure] = []
    for position in range(first, min(first + cut.shard_images, source.samples)):
        name = f"position {position}"
        try:
            found = source.item(position)
            items = found if isinstance(found, tuple) else (found,)
            name = items[0].name
            packed = [
                pack_sample(item, cut, position=position, meta_bytes=source.meta_bytes, number=number)
                for number, item in enumerate(items)
            ]
        except (ImageError, FileNotFoundError) as error:
            failures.append(_failure(position, name, error))
            continue
        except OSError as error:
            raise StoreError(
                f"cannot read {error.filename or name}: {one_line(error)}; the storage failed, which says "
                f"nothing of the picture, so the build stops; mend it, and the same command goes on"
            ) from error
        for record in packed:
            records.append(record)
            stops.append(len(record) + (stops[-1] if stops else 0))
    if not records:
        return CutShard(b"", 0, cut_blocks(b"", [], cut.block_samples), failures)
    data = b"".join([*records, tar_end(stops[-1])])
    return CutShard(data, len(records), cut_blocks(data, stops, cut.block_samples), failures)


def pack_sample(item: Item, cut: Cut, *, position: int, meta_bytes: int, number: int = 0) -> bytes:
    """The tar bytes of one item, the `number`-th at its position: image, then JSON. Raises ImageError."""
    pixels = decode(item.image) if isinstance(item.image, bytes) else item.image
    square = to_square_cv2 if cut.resize == "cv2_linear" else to_square
    image = encode(square(pixels, cut.size), cut.encoding, quality=cut.quality or 0)
    meta = {"name": item.name} | dict(item.meta or {})
    if item.label is not None:
        meta["label"] = item.label
    # Full tar blocks, so that the last byte of a record is never a matter of the name's length.
    pad_bytes = meta_bytes + padding(meta_bytes) if cut.encoding == "npy" else 0
    text = meta_json(meta, pad_bytes=pad_bytes)
    if pad_bytes and len(text) > pad_bytes:
        raise ShardsError(f"{item.name}: its JSON takes {len(text)} bytes, the source promised {meta_bytes}")
    key = f"{position:08d}-{number}" if number else f"{position:08d}"
    return pack_record(key, [(cut.encoding, image), ("json", text)])


def record_bytes(size: int, meta_bytes: int) -> int:
    """The length of every record of an npy dataset."""
    image = NPY_HEADER_BYTES + size * size * 3
    return 2 * TAR_BLOCK + image + padding(image) + meta_bytes + padding(meta_bytes)


def _failure(position: int, name: str, error: ImageError | FileNotFoundError) -> Failure:
    if isinstance(error, ImageError):
        return Failure(position, name, error.reason, str(error))
    return Failure(position, name, MISSING, one_line(error))
