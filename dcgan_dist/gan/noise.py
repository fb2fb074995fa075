"""z by counter: number i of row r is a hash of (seed, r z_size + i). So any rows can be drawn apart, where
they are used, and no generator's state has to be kept.

The hash is SplitMix's, twice (Steele, Lea and Flood 2014; `shards/dataset/splitmix.py`): the counter's, xor
the seed's, hashed again. All of it is whole numbers of 64 bits, and a uniform z holds 24 of them exactly: the
same bits on CPUs and GPUs. Normal z are computed in float64 and rounded to float32; devices whose logarithm
or cosine differ in its last bit hardly ever differ in that.
"""

import math

import torch
from torch import Tensor

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Noise:
    """z of `rows` of a batch: uniform on (-1, 1) (paper), or standard normal."""

    def __init__(self, rows: range, z_size: int, *, kind: str, device: torch.device | str = "cpu") -> None:
        self.kind = kind
        counter = torch.arange(rows.start * z_size, rows.stop * z_size, device=device).view(-1, z_size)
        # What every draw begins with: the first step of the second hash goes for counter and seed apart.
        first = _product(_shifted_in(counter + _signed(GOLDEN), 30))
        self._hashed = _shifted_in(_shifted_in(first, 31), 30)
        self._middle = torch.full((), 2.0**-24, device=device)

    def draw(self, seed: int) -> Tensor:
        """(rows, z_size) float32 on the device."""
        return self.of_key(self.key(seed))

    @staticmethod
    def key(seed: int) -> int:
        """What a seed comes to, an int64."""
        key = _mix(seed)
        return _signed(key ^ key >> 30)

    def of_key(self, key: int | Tensor) -> Tensor:
        """As `draw`, by a key that may lie on the device, () int64."""
        hashed = _product(self._hashed ^ key)
        if self.kind == "normal":
            return _normal(_shifted_in(hashed, 31))
        # Its upper 24 bits with their sign, which the hash's last step would leave as they are, are k in
        # [-2^23, 2^23): (k + 1/2) / 2^23, exactly.
        return torch.add(self._middle, hashed >> 40, alpha=2.0**-23)


def draw_noise(images: int, z_size: int, *, kind: str, seed: int) -> Tensor:
    """z of the first `images` rows, (images, z_size) float32 on the CPU."""
    return Noise(range(images), z_size, kind=kind).draw(seed)


def _normal(hashed: Tensor) -> Tensor:
    """Box and Muller's (1958), from the two halves of each number: up to 6.8 standard deviations."""
    share, turn = (
        ((half & 0xFFFFFFFF).to(torch.float64) + 0.5) * 2.0**-32 for half in (hashed >> 32, hashed)
    )
    drawn: Tensor = (-2 * share.log()).sqrt() * (2 * math.pi * turn).cos()
    return drawn.to(torch.float32)


def _mix(number: int) -> int:
    """SplitMix's hash of one number."""
    number = (number + GOLDEN) % 2**64
    number = (number ^ number >> 30) * FIRST % 2**64
    number = (number ^ number >> 27) * SECOND % 2**64
    return number ^ number >> 31


def _product(numbers: Tensor) -> Tensor:
    """The hash's middle, of int64 taken for unsigned: between its first step and its last."""
    return _shifted_in(numbers * _signed(FIRST), 27) * _signed(SECOND)


def _shifted_in(numbers: Tensor, bits: int) -> Tensor:
    """Xor themselves shifted right, zeros coming in."""
    kept: int = 2 ** (64 - bits) - 1
    return numbers ^ ((numbers >> bits) & kept)


def _signed(number: int) -> int:
    """The int64 of the same bits."""
    return number - 2**64 if number >= 2**63 else number
