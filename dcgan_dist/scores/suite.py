"""All scores of a generator at once, over all ranks, with the protocol that makes them comparable.

Real pictures are a fair sample of the dataset: the odd ones are the reference, the even ones a second real
set of the same size, whose scores are the floor (`*_floor`): what a perfect generator would get from as many
pictures. Ranks share reading, drawing, distances and Inception's features; K-means, NDB and FID, which take
seconds, run whole on each.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dcgan_dist import pictures
from dcgan_dist.gan import calibrate
from dcgan_dist.ranks.world import World
from dcgan_dist.run_folder.networks import Sampler
from dcgan_dist.scores.inception import Inception, frechet_and_kernel
from dcgan_dist.scores.ndb import make_bins, ndb
from dcgan_dist.scores.precision_recall import copying, manifold_scores
from dcgan_dist.scores.swd import mean_swd
from dcgan_dist.seeds import seed_for
from shards import ShardsError
from shards.arrays import U8
from shards.dataset.reader import Blocks
from shards.dataset.sampling import fair_places
from shards.redact import redact

CHUNK_IMAGES = 128


@dataclass(frozen=True)
class Reals:
    """Two real sets of one size, uint8 (n, S, S, 3)."""

    reference: U8
    other: U8


def read_reals(blocks: Blocks, images: int, here: World) -> Reals:
    """A fair sample of 2 x `images`, taken in turn; each rank reads its share, and all must call it.

    Raises ShardsError where there are fewer.
    """
    if blocks.index.kept < 2 * images:
        raise ShardsError(
            f"{blocks.url} has {blocks.index.kept} pictures, {2 * images} are needed; lower --images"
        )
    places, size = fair_places(blocks.index, 2 * images), blocks.index.image_size
    everything = torch.zeros(len(places), size, size, 3, dtype=torch.uint8, device=here.device)
    mine = here.share(len(places))
    if mine:
        everything[mine.start : mine.stop] = torch.from_numpy(blocks.take(places[mine])).to(here.device)
    found: U8 = here.sum(everything).cpu().numpy()
    return Reals(found[::2], found[1::2])


def draw(sampler: Sampler, images: int, here: World, *, seed: int = 0) -> U8:
    """The same samples on any number of ranks, uint8 (images, S, S, 3), with batch norm frozen."""
    sampler.freeze()
    size = sampler.generator.net.image_size
    everything = torch.zeros(images, size, size, 3, dtype=torch.uint8, device=here.device)
    for chunk in here.share(-(-images // CHUNK_IMAGES)):
        rows = slice(chunk * CHUNK_IMAGES, min((chunk + 1) * CHUNK_IMAGES, images))
        z = sampler.noise(CHUNK_IMAGES, seed=seed_for(seed, "scores", chunk))
        drawn = torch.from_numpy(pictures.to_uint8(sampler(z)))[: rows.stop - rows.start]
        everything[rows] = drawn.to(here.device)
    found: U8 = here.sum(everything).cpu().numpy()
    return found


def score(reals: Reals, fake: U8, here: World, inception: Inception | None = None) -> dict[str, float]:
    """Every score of `fake` and its floor; all ranks must call it."""
    sets = reals.reference, reals.other, fake
    floor, distance = mean_swd(reals.reference, [reals.other, fake], here)
    told = {"swd": distance, "swd_floor": floor}
    reference, other, drawn = (_pixels(images, here) for images in sets)
    told |= _with_floor(reference, other, drawn, here) | copying(reference, other, drawn, here)
    if inception is not None:
        features = [inception.features(images, here) for images in sets]
        told |= frechet_and_kernel(features[0], features[2])
        told |= {f"{k}_floor": v for k, v in frechet_and_kernel(features[0], features[1]).items()}
        on_features = manifold_scores(features[0], features[2], here)
        told |= {f"inception_{name}": value for name, value in on_features.items()}
    return told


def _with_floor(reference: Tensor, other: Tensor, fake: Tensor, here: World) -> dict[str, float]:
    told: dict[str, float] = {}
    centres = make_bins(reference)
    for end, images in (("", fake), ("_floor", other)):
        found = manifold_scores(reference, images, here) | ndb(centres, reference, images)
        told |= {name + end: value for name, value in found.items()}
    return told


def _pixels(images: U8, here: World) -> Tensor:
    """(n, S x S x 3) in [0, 1]."""
    return torch.from_numpy(images).to(here.device).flatten(1).float() / 255


def protocol(images: int, url: str, inception: Inception | None) -> dict[str, Any]:
    """What has to be the same for two scores to be compared."""
    return {
        "images": images,
        "real": f"a fair sample of {2 * images} of {redact(url)}, by a hash, in turn reference and floor",
        "batch_norm": calibrate.ON_NOISE,
        "swd": "x 1000, mean over levels",
        "features": "pixels in [0, 1]; precision, recall k=3; density, coverage k=5",
        "ndb": "share of K-means bins of pixels that differ at 5 %",
        "nearest": "median Euclidean distance to the nearest reference picture; new real ones: ratio 1",
        "inception_sha256": inception.sha256 if inception else None,
    }
