"""An index for tars that have none, by one pass over them; ours or any webdataset tars of one image size.

Kept out: changing a shard; this only reads them.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from shards import index as indexes
from shards import store
from shards.blocks import BlockTable, cut_blocks, default_block_samples
from shards.errors import ShardsError
from shards.format import PIXELS_OFFSET, TAR_BLOCK, Record, npy_header, parse_records
from shards.images import declared_size
from shards.index import Index, Shard


@dataclass
class Found:
    """What the records of a dataset have in common, as far as they are read."""

    shapes: set[tuple[str, int, int]] = field(default_factory=set)
    """Encoding, height, width."""
    strides: set[int] = field(default_factory=set)
    """Lengths of the records; 0 for one whose pixels are not where `.npy` records have them."""
    labels: set[int] = field(default_factory=set)


def reindex(url: str, *, block_samples: int | None = None) -> Index:
    """Read every tar at `url` and write its index. Block size, classes and source of an old one are kept."""
    names = [name for name in store.sizes(url) if name.endswith(".tar")]
    if not names:
        raise ShardsError(f"{url} holds no .tar files; to make some run: python -m shards build --help")
    old = _old_index(url)
    if block_samples is None and old:
        block_samples = old.block_samples
    found, shards, tables = Found(), [], []
    for name in names:
        shard, table = _read_shard(url, name, found, block_samples)
        shards.append(_with_marks(shard, old))
        tables.append(table)
    ((encoding, size, _),) = found.shapes
    index = Index(
        version=indexes.VERSION,
        encoding=encoding,
        image_size=size,
        block_samples=block_samples or default_block_samples(size),
        record_bytes=found.strides.pop() if len(found.strides) == 1 else 0,
        classes=old.classes if old else _classes(found.labels),
        shards=tuple(shards),
        blocks_sha256="",
        source=old.source if old else {"source": "index"},
    )
    return indexes.save(url, index, np.concatenate(tables))


def _read_shard(url: str, name: str, found: Found, block_samples: int | None) -> tuple[Shard, BlockTable]:
    where = store.join(url, name)
    data = store.read_bytes(where)
    records = parse_records(data, where=where)
    if not records:
        raise ShardsError(f"{where} holds no samples; remove it, or build it again")
    for record in records:
        _look(record, data, found, where)
    ((_, size, _),) = found.shapes
    stops = [record.stop for record in records]
    table = cut_blocks(data, stops, block_samples or default_block_samples(size))
    return Shard(name, len(records), len(data), hashlib.sha256(data).hexdigest()), table


def _look(record: Record, data: bytes, found: Found, where: str) -> None:
    image = record.image()
    if image is None:
        members = ", ".join(record.members)
        raise ShardsError(
            f"{where}: sample {record.key} has no image that we read (it has {members}); remove it"
        )
    encoding, member = image
    height, width = declared_size(member)
    found.shapes.add((encoding, height, width))
    if height != width or len(found.shapes) > 1:
        shapes = ", ".join(f"{name} {wide} x {high}" for name, high, wide in sorted(found.shapes))
        raise ShardsError(
            f"{where}: sample {record.key} makes it {shapes}; a dataset has one square size and encoding, "
            f"so unpack it and run: python -m shards build folder"
        )
    pixels = data[record.start + TAR_BLOCK : record.start + PIXELS_OFFSET]
    strided = encoding == "npy" and pixels == npy_header(height)
    found.strides.add(record.stop - record.start if strided else 0)
    label = record.meta().get("label")
    if isinstance(label, int):
        found.labels.add(label)


def _old_index(url: str) -> Index | None:
    try:
        return indexes.load(url)
    except ShardsError:
        return None


def _with_marks(shard: Shard, old: Index | None) -> Shard:
    """`shard`, with what the old index marked as removed where its bytes are still the same."""
    same = [each for each in (old.shards if old else ()) if each.sha256 == shard.sha256]
    return same[0] if same and same[0].name == shard.name else shard


def _classes(labels: set[int]) -> tuple[str, ...]:
    high = max(labels, default=-1)
    return tuple(str(label) for label in range(high + 1)) if 0 <= high < 10**6 else ()
