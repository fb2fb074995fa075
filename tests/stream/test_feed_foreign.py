"""Tars of others, adopted as they are, are served as our own."""

from pathlib import Path

import numpy as np
import pytest

from dcgan_dist.stream.feed import Blocks, Feed
from dcgan_dist.stream.plan import Plan
from shards.dataset import index as shard_index
from shards.dataset.adopt import reindex
from shards.pictures.codec import decode
from tests.shards.dataset.foreign import picture, write

IMAGES, SIZE, BATCH = 40, 16, 5


@pytest.mark.parametrize("encoding", ["jpg", "png", "npy"])
def test_every_picture_of_adopted_tars_is_served_once_an_epoch(tmp_path: Path, encoding: str) -> None:
    pictures = [picture(number, size=SIZE, encoding=encoding) for number in range(IMAGES)]
    for shard in range(2):
        members = [(f"folder-{'long' * 30}/", b"")]
        for number in range(shard, IMAGES, 2):
            name = f"folder-{'long' * 30}/{number}"  # over 100 bytes: a PAX header
            mask = picture(0, size=SIZE, encoding="png")
            members += [
                (f"{name}.cls", b"3"),
                (f"{name}.mask.png", mask),
                (f"{name}.{encoding}", pictures[number]),
            ]
        url = write(tmp_path / "set", members, name=f"{shard}.tar")
    index = reindex(url, block_samples=6)
    assert (index.samples, index.record_bytes) == (IMAGES, 0)
    blocks = Blocks(url, shard_index.load(url))
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=1)
    served = []
    with Feed(blocks, plan, lanes=range(BATCH)) as feed:
        for _ in range(plan.steps_per_epoch):
            served += [image.tobytes() for image in feed.next_batch()]
        assert feed.replaced == 0
    expected = {_pixels(data, encoding).tobytes() for data in pictures}
    assert len(expected) == IMAGES
    assert (len(served), set(served)) == (IMAGES, expected)


def _pixels(data: bytes, encoding: str) -> np.ndarray:
    if encoding != "npy":
        return decode(data)
    return np.frombuffer(data, np.uint8, offset=128).reshape(SIZE, SIZE, 3)
