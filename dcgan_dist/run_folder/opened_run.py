"""What is explored: a run's two networks with batch norm frozen, its data, and what is true of each picture.

G's statistics are frozen over 20 batches of 128 z, D's over 20 batches of 128 real pictures.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcgan_dist import pictures
from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.checkpoint import CheckpointError
from dcgan_dist.gan import calibrate
from dcgan_dist.gan.model import Discriminator, initialise
from dcgan_dist.run_folder import untrusted
from dcgan_dist.run_folder.networks import Sampler, load, load_discriminator
from dcgan_dist.seeds import seed_for
from shards import Index, ShardsError
from shards.arrays import I64, U8
from shards.dataset.index import load as load_index
from shards.dataset.reader import Blocks
from shards.dataset.sampling import fair_places
from shards.pictures.codec import decode_into
from shards.tars.records import parse_records


@dataclass(frozen=True)
class Subject:
    """A run as the explorations see it; everything random follows from `seed`."""

    run: str
    sampler: Sampler
    data: str
    seed: int = 0

    @property
    def step(self) -> int:
        return self.sampler.step

    @property
    def size(self) -> int:
        """Pixels of a side."""
        return self.sampler.generator.net.image_size

    def noise(self, images: int, purpose: str) -> Tensor:
        """z of the run's distribution, (images, z_size); another purpose, other z."""
        return self.sampler.noise(images, seed=seed_for(self.seed, purpose))

    def draw(self, z: Tensor) -> U8:
        """z -> pictures, uint8 (n, S, S, 3)."""
        return pictures.to_uint8(self.sampler(z))

    @cached_property
    def index(self) -> Index:
        """The dataset's. Raises ShardsError where it is not there, or has pictures of another size."""
        found = load_index(self.data)
        if found.image_size != self.size:
            raise ShardsError(
                f"{self.data} has pictures of {found.image_size} pixels, {self.run} draws {self.size}; "
                "give --data with a dataset of that size"
            )
        return found

    def real(self, images: int) -> U8:
        """A fair sample of the dataset, at most `images`."""
        return Blocks(self.data, self.index).sample(images)

    def truth(self, images: int) -> tuple[U8, list[dict[str, Any]]]:
        """The same pictures as `real`, and what their json says of them."""
        return read_truth(self.data, self.index, images=images)

    def discriminator(self, *, random_seed: int | None = None) -> Discriminator:
        """D frozen on real pictures, as trained or freshly initialised. Raises CheckpointError."""
        d, _, _ = load_discriminator(self.run, step=self.step)
        if random_seed is not None:
            initialise(d, seed_for(random_seed, "random D"))
        real = to_tensor(self.real(calibrate.BATCHES * calibrate.BATCH_IMAGES))
        calibrate.calibrate(d, torch.split(real, calibrate.BATCH_IMAGES))
        return d.requires_grad_(False)


def to_tensor(images: U8) -> Tensor:
    """uint8 (n, S, S, 3) -> (n, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def open_subject(run: str, *, step: int | None = None, data: str | None = None, seed: int = 0) -> Subject:
    """A run's networks and data. Raises CheckpointError, ConfigError or ShardsError."""
    sampler = load(run, step=step)
    sampler.generator.requires_grad_(False)
    return Subject(run, sampler, data or sampler.config.data.url, seed)


def steps_of(run: str) -> list[int]:
    """Steps that have a checkpoint. Raises CheckpointError where none has."""
    found = checkpoint.steps(untrusted.folder(run, "checkpoints"))
    if not found:
        raise CheckpointError(f"{run} has no whole checkpoint; train it first")
    return found


def read_truth(url: str, index: Index, *, images: int) -> tuple[U8, list[dict[str, Any]]]:
    """A fair sample of pictures, uint8 (n, S, S, 3), at most `images`, and the json of each.

    Raises ShardsError.
    """
    places, blocks, size = fair_places(index, images), Blocks(url, index), index.image_size
    out = np.empty((len(places), size, size, 3), np.uint8)
    metas: list[dict[str, Any]] = [{} for _ in places]

    def read(block: int, data: bytes, positions: I64, rows: I64) -> None:
        records = parse_records(data, where=url)
        for position, row in zip(positions.tolist(), rows.tolist(), strict=True):
            image = records[position].image() if position < len(records) else None
            if image is None:
                raise ShardsError(f"{url}: {blocks.sample_name(block, position)} has no picture")
            decode_into(image[1], out[row])
            metas[row] = records[position].meta()

    blocks.visit(places, read)
    return out, metas
