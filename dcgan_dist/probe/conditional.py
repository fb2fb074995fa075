"""Class-conditional networks for small grey pictures: the paper's appendix and the authors' MNIST code.

The class enters every layer of both networks, as constant maps at convolutions. A picture travels with its
class: (n, 1 + classes, S, S), the maps behind the grey ones in [0, 1]. Noise travels with it too:
(n, z + classes). So the update of `step.py` serves as it is. Batch norm has neither gain nor bias, but its
own place is the paper's. The baseline is a plain multilayer perceptron with as many layers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcgan_dist.gan.batchnorm import BatchNorm
from dcgan_dist.gan.model import LEAK

EPS = 1e-8
Z_SIZE = 100
WIDTHS = (1024, 128, 64)
"""Units of the dense layer and channels of the two convolutions of MNIST's networks."""


def with_class(h: Tensor, one_hot: Tensor) -> Tensor:
    """`h` (n, c) or (n, c, s, s) with the class behind it, spread over all places."""
    if h.dim() == 4:
        one_hot = one_hot[:, :, None, None].expand(-1, -1, *h.shape[2:])
    return torch.cat([h, one_hot.to(h)], dim=1)


def _plain(features: int) -> BatchNorm:
    return BatchNorm(features, eps=EPS, affine=False)


def _up(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1, bias=False)


def _down(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 5, stride=2, padding=2, bias=False)


class _Discriminator(nn.Module):
    """The logits of one batch, or a tuple of those of several; batch norm sees them apart."""

    def forward(self, images: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        logits = tuple(self.judge(batch) for batch in (images, *others))
        return logits if others else logits[0]

    def judge(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class ConditionalGenerator(nn.Module):
    """(n, z + classes) -> (n, 1 + classes, S, S), S a multiple of 4."""

    def __init__(self, side: int, classes: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        dense, deep, shallow = widths
        self.quarter, self.classes, self.deep = side // 4, classes, deep
        self.dense = nn.Linear(Z_SIZE + classes, dense, bias=False)
        self.project = nn.Linear(dense + classes, deep * self.quarter**2, bias=False)
        self.convs = nn.ModuleList([_up(deep + classes, shallow), _up(shallow + classes, 1)])
        self.norms = nn.ModuleList([_plain(dense), _plain(deep * self.quarter**2), _plain(shallow)])

    def forward(self, z: Tensor) -> Tensor:
        one_hot = z[:, Z_SIZE:]
        h = functional.relu(self.norms[0](self.dense(z)))
        h = functional.relu(self.norms[1](self.project(with_class(h, one_hot))))
        h = h.view(-1, self.deep, self.quarter, self.quarter)
        h = functional.relu(self.norms[2](self.convs[0](with_class(h, one_hot))))
        return with_class(torch.sigmoid(self.convs[1](with_class(h, one_hot))), one_hot)


class ConditionalDiscriminator(_Discriminator):
    """(n, 1 + classes, S, S) -> logits (n,)."""

    def __init__(self, side: int, classes: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        dense, deep, shallow = widths
        self.convs = nn.ModuleList([_down(1 + classes, shallow), _down(shallow + classes, deep)])
        self.dense = nn.Linear(deep * (side // 4) ** 2 + classes, dense, bias=False)
        self.logit = nn.Linear(dense + classes, 1, bias=False)
        self.norms = nn.ModuleList([_plain(deep), _plain(dense)])

    def judge(self, images: Tensor) -> Tensor:
        one_hot = images[:, 1:, 0, 0]
        h = functional.leaky_relu(self.convs[0](images), LEAK)
        h = functional.leaky_relu(self.norms[0](self.convs[1](with_class(h, one_hot))), LEAK)
        h = with_class(h.contiguous().flatten(1), one_hot)
        h = functional.leaky_relu(self.norms[1](self.dense(h)), LEAK)
        logits: Tensor = self.logit(with_class(h, one_hot)).squeeze(1)
        return logits


class DenseGenerator(nn.Module):
    """The same as a perceptron that knows no neighbouring pixels (Goodfellow et al. 2014; layout ours)."""

    def __init__(self, side: int, classes: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.side, units = side, widths[0]
        sizes = ((Z_SIZE, units), (units, units), (units, side**2))
        self.layers = nn.ModuleList(nn.Linear(a + classes, b, bias=False) for a, b in sizes)
        self.norms = nn.ModuleList([_plain(units), _plain(units)])

    def forward(self, z: Tensor) -> Tensor:
        h, one_hot = z[:, :Z_SIZE], z[:, Z_SIZE:]
        for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
            h = functional.relu(norm(layer(with_class(h, one_hot))))
        pixels = torch.sigmoid(self.layers[-1](with_class(h, one_hot)))
        return with_class(pixels.view(-1, 1, self.side, self.side), one_hot)


class DenseDiscriminator(_Discriminator):
    """(n, 1 + classes, S, S) -> logits (n,), pixels as a row."""

    def __init__(self, side: int, classes: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        units = widths[0]
        sizes = ((side**2, units), (units, units), (units, 1))
        self.layers = nn.ModuleList(nn.Linear(a + classes, b, bias=False) for a, b in sizes)
        self.norm = _plain(units)  # none on the first layer, as in the other discriminators

    def judge(self, images: Tensor) -> Tensor:
        one_hot = images[:, 1:, 0, 0]
        h = with_class(images[:, 0].contiguous().flatten(1), one_hot)
        h = functional.leaky_relu(self.layers[0](h), LEAK)
        h = functional.leaky_relu(self.norm(self.layers[1](with_class(h, one_hot))), LEAK)
        logits: Tensor = self.layers[2](with_class(h, one_hot)).squeeze(1)
        return logits


NETWORKS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "dcgan": (ConditionalGenerator, ConditionalDiscriminator),
    "mlp": (DenseGenerator, DenseDiscriminator),
}
