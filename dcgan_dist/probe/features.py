"""Pictures as rows of numbers: a discriminator's maps, as the paper pools them (section 5.1), or raw pixels.

Every convolution layer's maps after their activation are max-pooled to 4x4, flattened and laid end to end:
28,672 values for the authors' ImageNet network, 7,168 for their SVHN network. Batch norm is frozen first.
"""

import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dcgan_dist import pictures
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.gan.calibrate import calibrate
from dcgan_dist.gan.description import Net
from dcgan_dist.gan.model import Discriminator, initialise
from dcgan_dist.seeds import seed_for
from shards.arrays import F32, U8

POOLED_SIDE = 4
BATCH_IMAGES = 128
"""Of the authors' statistics, and of reading."""
IN_MEMORY_BYTES = 2**31


def randomised(d: Discriminator, *, seed: int) -> Discriminator:
    """A discriminator of the same shape with fresh weights: the control of every claim about features."""
    twin = Discriminator(d.net, norm_eps=d.norm_eps, variant=d.variant)
    initialise(twin, seed_for(seed, "random features"))
    return twin


def choose_layers(net: Net, names: Sequence[str]) -> list[int]:
    """`conv1`, `conv2`, ... as positions; all layers for no names. Raises ConfigError."""
    known = [f"conv{number}" for number in range(1, len(net.d) + 1)]
    for name in names:
        if name not in known:
            raise ConfigError(f"layer {name!r} is not one of this network's: {', '.join(known)}")
    chosen = [known.index(name) for name in names or known]
    for layer in chosen:
        if net.d[layer].side % POOLED_SIDE:
            raise ConfigError(
                f"layer {known[layer]} has maps of {net.d[layer].side} pixels, which do not pool to "
                f"{POOLED_SIDE}x{POOLED_SIDE}; choose among the others with --layers"
            )
    return chosen


def feature_length(net: Net, layers: Sequence[int]) -> int:
    """Values a picture."""
    return sum(net.d[layer].channels for layer in layers) * POOLED_SIDE**2


def freeze(d: Discriminator, images: U8) -> str:
    """Freeze batch norm over one pass of `images` in batches of 128; tells so in words."""
    count = calibrate(d, _batches(d, images))
    return f"batch norm frozen: plain mean over {count} batches of {BATCH_IMAGES} of {len(images)} pictures"


@torch.no_grad()
def discriminator_features(d: Discriminator, images: U8, *, layers: Sequence[int]) -> F32:
    """(n, feature_length) of uint8 (n, S, S, 3); in a temporary file beyond IN_MEMORY_BYTES."""
    out = empty_rows(len(images), feature_length(d.net, layers))
    at = 0
    for batch in _batches(d, images):
        maps = d.maps(batch)
        pooled = [_pool(maps[layer]) for layer in layers]
        out[at : at + len(batch)] = torch.cat(pooled, dim=1).cpu().numpy()
        at += len(batch)
    return out


def _pool(maps: Tensor) -> Tensor:
    window = maps.shape[-1] // POOLED_SIDE
    return functional.max_pool2d(maps.contiguous(), window, window).flatten(1)


def _batches(d: Discriminator, images: U8) -> Iterator[Tensor]:
    weight = d.logit.weight
    for start in range(0, len(images), BATCH_IMAGES):
        yield pictures.to_device(images[start : start + BATCH_IMAGES], weight.device, weight.dtype)


def pixel_features(images: U8) -> F32:
    """Raw pixels, (n, S x S x c), on the scale of the 8x8 digits: 0 to 16."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255 / 16)


def grey_if_it_is(images: U8) -> U8:
    """(n, S, S, 3) -> (n, S, S, 1) where the three are one."""
    same = (images[..., :1] == images).all()
    return images[..., :1] if same else images


def empty_rows(rows: int, columns: int) -> F32:
    """Room for features: in memory, or mapped from a temporary file where there are many."""
    if 4 * rows * columns <= IN_MEMORY_BYTES:
        return np.empty((rows, columns), np.float32)
    # The file has no name already; the mapping keeps it until the array goes.
    with tempfile.TemporaryFile(prefix="dcgan_dist-") as file:
        return np.memmap(file, np.float32, "w+", shape=(rows, columns))
