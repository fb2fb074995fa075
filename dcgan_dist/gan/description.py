"""Networks as one line of text: every layer is `channels@side`, the rest follows from its neighbour.

    z100 k5 g 1024@4 512@8 256@16 128@32 3@64 d 128@32 256@16 512@8 1024@4

reads: 100 noise values, 5x5 kernels; the generator projects z to 1024 maps of 4x4, then each layer doubles
the side (stride 2) or keeps it (stride 1); the discriminator halves or keeps it, and ends in one logit.
This module knows the text and nothing of torch, so that a login node can check it.
"""

import itertools
import re
from dataclasses import dataclass
from typing import Literal

from shards.errors import ToldError

PRESETS = {
    # Paper, figure 1, with the discriminator of the authors' code: LSUN and faces at 64x64.
    "dcgan64": "z100 k5 g 1024@4 512@8 256@16 128@32 3@64 d 128@32 256@16 512@8 1024@4",
    # The authors' released ImageNet 32x32 network.
    "imagenet32": (
        "z256 k3 g 512@4 512@8 256@8 256@16 128@16 128@32 3@32 d 128@32 128@16 256@16 256@8 512@8 512@4"
    ),
    # The authors' released SVHN network.
    "svhn32": "z100 k5 g 256@4 128@8 64@16 3@32 d 64@16 128@8 256@4",
    # For CPUs: a good generator of 32x32 pictures within minutes on two cores.
    "small32": "z64 k5 g 128@4 64@8 32@16 3@32 d 32@16 64@8 128@4",
    # For tests: trains in milliseconds.
    "tiny16": "z16 k5 g 16@4 8@8 3@16 d 8@8 16@4",
}


N = r"\d{1,12}"
MOST_WEIGHTS = 2**32


class NetError(ToldError):
    """A network's text does not describe a network."""


Norm = Literal["paper", "everywhere", "not_in_g", "nowhere"]
Head = Literal["flat", "pooled"]
Output = Literal["tanh", "linear"]
Activation = Literal["leaky_relu", "relu", "maxout"]


@dataclass(frozen=True)
class Variant:
    """What the paper tried beside its recipe (sections 3 and 4); the defaults are the recipe."""

    norm: Norm = "paper"
    head: Head = "flat"
    output: Output = "tanh"
    d_activation: Activation = "leaky_relu"


PAPER = Variant()


@dataclass(frozen=True)
class Layer:
    channels: int
    side: int


@dataclass(frozen=True)
class Net:
    """Both networks of a GAN.

    `g[0]` is the projection of z, `g[-1]` the picture; `d[-1]` is flattened into one logit.
    """

    z_size: int
    kernel: int
    g: tuple[Layer, ...]
    d: tuple[Layer, ...]

    @property
    def weights(self) -> int:
        """About how many both networks have."""
        pairs = [*itertools.pairwise(self.g), *itertools.pairwise((self.g[-1], *self.d))]
        projected = self.z_size * self.g[0].channels * self.g[0].side ** 2
        return projected + sum(self.kernel**2 * a.channels * b.channels for a, b in pairs)

    @property
    def image_size(self) -> int:
        return self.g[-1].side

    @property
    def image_channels(self) -> int:
        return self.g[-1].channels


def parse_net(text: str) -> Net:
    """The network that `text` names (a preset) or describes. Raises NetError."""
    described = PRESETS.get(text.strip(), text)
    match = re.fullmatch(rf"z({N}) k({N}) g((?: {N}@{N})+) d((?: {N}@{N})+)", described.strip())
    if match is None:
        raise NetError(
            f"{text!r} is neither a preset ({', '.join(PRESETS)}) nor a description like "
            "'z64 k5 g 128@4 64@8 3@16 d 64@8 128@4'"
        )
    z_size, kernel = int(match[1]), int(match[2])
    g, d = _layers(match[3]), _layers(match[4])
    net = Net(z_size, kernel, g, d)
    if min(z_size, *(value for layer in g + d for value in (layer.channels, layer.side))) < 1:
        raise NetError(f"{text!r}: z, channels and sides are at least 1")
    if net.weights > MOST_WEIGHTS:
        raise NetError(f"{text!r}: {net.weights:,} weights; at most {MOST_WEIGHTS:,} are supported")
    if net.image_channels != 3:
        raise NetError(f"{text!r}: the generator ends in {net.image_channels} channels; pictures have 3")
    for before, after in itertools.pairwise(g):
        _check_sides(before, after, kernel, factor=after.side / before.side, grows="doubles")
    for before, after in zip((g[-1], *d), d, strict=False):
        _check_sides(before, after, kernel, factor=before.side / after.side, grows="halves")
    return net


def describe(net: Net) -> str:
    """The text that `parse_net` reads as this network."""
    g, d = (" ".join(f"{layer.channels}@{layer.side}" for layer in layers) for layers in (net.g, net.d))
    return f"z{net.z_size} k{net.kernel} g {g} d {d}"


def _layers(text: str) -> tuple[Layer, ...]:
    pairs = (item.split("@") for item in text.split())
    return tuple(Layer(int(channels), int(side)) for channels, side in pairs)


def _check_sides(before: Layer, after: Layer, kernel: int, *, factor: float, grows: str) -> None:
    if factor not in (1, 2):
        raise NetError(f"a layer keeps or {grows} the side, but {before.side} is followed by {after.side}")
    if not 3 <= kernel <= 7:
        raise NetError(f"kernel k{kernel}: kernels of 3 to 7 pixels are supported")
    if factor == 1 and kernel % 2 == 0:
        raise NetError(f"a layer that keeps its side ({after.side}) needs an odd kernel, not k{kernel}")
