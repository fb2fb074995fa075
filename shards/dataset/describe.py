"""What a dataset is, in a few lines, and one sample of it.

Kept out: reading many samples fast, which is the stream's.
"""

from typing import Any

import numpy as np

from shards.dataset.index import Index
from shards.dataset.reader import Blocks
from shards.errors import ShardsError
from shards.pictures.codec import Pixels, decode_into
from shards.printable import printable
from shards.tars.records import Record, compact_json, parse_records


def describe(url: str, index: Index) -> str:
    """Aligned lines: what there is, how it is cut, where it came from."""
    classes = f"{len(index.classes)} ({', '.join(index.classes[:10])}{', ...' * (len(index.classes) > 10)})"
    lines = {
        "dataset": url,
        **({"tars": index.tars} if index.tars else {}),
        "images": f"{index.samples:,}",
        "removed": f"{index.samples - index.kept:,}",
        "size": f"{index.image_size} x {index.image_size}" if index.image_size else "any",
        "encoding": index.encoding,
        "classes": classes if index.classes else "none",
        "shards": f"{len(index.shards):,}",
        "bytes": f"{index.bytes:,}",
        "block": f"{index.block_samples} samples",
        "record": f"{index.record_bytes} bytes" if index.record_bytes else "of any length",
        "source": ", ".join(f"{name}={_plain(value)}" for name, value in index.source.items()),
    }
    return "\n".join(printable(f"{name:<10}{value}") for name, value in lines.items())


def read_sample(url: str, index: Index, *, position: int) -> tuple[Pixels, dict[str, Any]]:
    """The picture at `position` of all samples, uint8 (S, S, 3), and its JSON. Raises ShardsError."""
    if not 0 <= position < index.samples:
        raise ShardsError(f"sample {position} is outside [0, {index.samples}) of {url}; give one inside")
    blocks = Blocks(url, index)
    block, within = blocks.find(position)
    where = blocks.shard_url(blocks.place(block).shard)
    records = parse_records(blocks.read(block), where=where)
    record = records[within] if within < len(records) else Record(f"{position}", {})
    image = record.image()
    if image is None:
        raise ShardsError(f"{where}: sample {record.key} has no image; run: python -m shards index {url}")
    out = np.empty((index.image_size, index.image_size, 3), np.uint8)
    decode_into(image[1], out)
    return out, record.meta()


def _plain(value: object) -> str:
    return value if isinstance(value, str) else compact_json(value).decode()
