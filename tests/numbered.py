"""Pictures that tell which sample they are, for tests of order and reading."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.building.build import build
from shards.sources.base import Item
from shards.storage import store

SIZE = 4


@dataclass(frozen=True)
class Numbers:
    """Picture n is filled with the base-256 digits of n."""

    samples: int
    classes: tuple[str, ...] = ()
    meta_bytes: int = 32

    def settings(self) -> dict[str, Any]:
        return {"source": "numbers", "samples": self.samples}

    def item(self, position: int) -> Item:
        return Item(str(position), np.full((SIZE, SIZE, 3), digits(position), np.uint8))


def digits(number: int) -> tuple[int, int, int]:
    return number >> 16, number >> 8 & 255, number & 255


def numbers(batch: np.ndarray) -> np.ndarray:
    """(..., S, S, 3) -> the number that each picture shows; every pixel must agree."""
    assert (batch == batch[..., :1, :1, :]).all(), "a picture is torn"
    found: np.ndarray = batch[..., 0, 0, :].astype(np.int64) @ np.array([65536, 256, 1])
    return found


def build_numbers(out: Path | str, samples: int, *, shard: int, block: int, encoding: str = "npy") -> str:
    url = str(out)
    build(
        Numbers(samples),
        url,
        size=SIZE,
        encoding=encoding,
        shard_images=shard,
        block_samples=block,
        workers=1,
    )
    return url


def in_memory(folder: str, name: str) -> str:
    """A copy at a `memory://` URL, which the store takes for remote."""
    url = f"memory://{name}"
    for file in store.sizes(folder):
        store.write_bytes(store.join(url, file), store.read_bytes(store.join(folder, file)))
    return url
