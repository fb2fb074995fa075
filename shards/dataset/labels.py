"""A whole dataset in memory with its labels, as measurements by class want it.

Kept out: streaming; a set that does not fit in memory is not read here.
"""

import numpy as np
from numpy.typing import NDArray

from shards.dataset.index import load
from shards.dataset.reader import Blocks
from shards.errors import ShardsError
from shards.tars.records import parse_records


def read_labelled(url: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """All kept samples in storage order: uint8 (n, S, S, 3), labels (n,), and the classes' names.

    Raises ShardsError where a picture is damaged or a label is missing or out of range.
    """
    index = load(url)
    if not index.classes:
        raise ShardsError(f"{url} has no classes; build it from a source with labels")
    blocks, size = Blocks(url, index), index.image_size
    images = np.empty((index.kept, size, size, 3), np.uint8)
    labels = np.empty(index.kept, np.int64)
    at = 0
    for block, kept in enumerate(blocks.kept_counts.tolist()):
        data, rows = blocks.read(block), slice(at, at + kept)
        damaged = blocks.decode_into(block, data, np.arange(kept), images[rows])
        if damaged:
            raise ShardsError(
                f"{url}: {damaged[0]}, which would have another label; run: python -m shards verify"
            )
        labels[rows] = _labels(blocks, block, data, len(index.classes))
        at += kept
    return images, labels, tuple(index.classes)


def _labels(blocks: Blocks, block: int, data: bytes, classes: int) -> list[int]:
    records = parse_records(data, where=blocks.url)
    found = []
    for position in blocks.kept(block).tolist():
        label = records[position].meta().get("label")
        if type(label) is not int or not 0 <= label < classes:
            raise ShardsError(
                f"{blocks.url}: {blocks.sample_name(block, position)} has the label {label!r}, "
                f"not a number below {classes}"
            )
        found.append(label)
    return found
