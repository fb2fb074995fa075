"""What a dataset is, in a few lines, and one sample of it.

Kept out: reading many samples fast, which is the stream's.
"""

from typing import Any

import numpy as np

from shards import index as indexes
from shards import store
from shards.blocks import block_sum
from shards.errors import ShardsError
from shards.format import Record, compact_json, parse_records
from shards.images import Pixels, decode_into
from shards.index import Index


def describe(url: str, index: Index) -> str:
    """Aligned lines: what there is, how it is cut, where it came from."""
    classes = f"{len(index.classes)} ({', '.join(index.classes[:10])}{', ...' * (len(index.classes) > 10)})"
    lines = {
        "dataset": url,
        "images": f"{index.samples:,}",
        "removed": f"{index.samples - index.kept:,}",
        "size": f"{index.image_size} x {index.image_size}",
        "encoding": index.encoding,
        "classes": classes if index.classes else "none",
        "shards": f"{len(index.shards):,}",
        "bytes": f"{index.bytes:,}",
        "block": f"{index.block_samples} samples",
        "record": f"{index.record_bytes} bytes" if index.record_bytes else "of any length",
        "source": ", ".join(f"{name}={_plain(value)}" for name, value in index.source.items()),
    }
    return "\n".join(f"{name:<10}{value}" for name, value in lines.items())


def read_sample(url: str, index: Index, *, position: int) -> tuple[Pixels, dict[str, Any]]:
    """The picture at `position` of all samples, uint8 (S, S, 3), and its JSON. Raises ShardsError."""
    if not 0 <= position < index.samples:
        raise ShardsError(f"sample {position} is outside [0, {index.samples}) of {url}; give one inside")
    table = indexes.load_blocks(url, index)
    number, block, within = index.find(position)
    shard = index.shards[number]
    row = table[index.block_starts()[number] + block]
    start, where = int(row["offset"]), store.join(url, shard.name)
    data = store.read_range(where, start, start + int(row["bytes"]))
    if block_sum(data) != int(row["sum"]):
        raise ShardsError(
            f"{where}: block {block} is damaged (its sum differs); run: python -m shards verify {url}"
        )
    records = parse_records(data, where=where)
    record = records[within] if within < len(records) else Record(f"{position}", {})
    image = record.image()
    if image is None:
        raise ShardsError(f"{where}: sample {record.key} has no image; run: python -m shards index {url}")
    out = np.empty((index.image_size, index.image_size, 3), np.uint8)
    decode_into(image[1], out)
    return out, record.meta()


def _plain(value: object) -> str:
    return value if isinstance(value, str) else compact_json(value).decode()
