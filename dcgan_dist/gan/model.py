"""The two networks of the DCGAN paper (section 3 and figure 1), from the description in `nets.py`.

No bias anywhere, batch norm on every layer but G's output and D's input, weights drawn from N(0, 0.02), gains
from N(1, 0.02): the authors' released code, where the paper is silent. Pictures are (n, 3, S, S) in [-1, 1].
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcgan_dist.gan.batchnorm import BatchNorm
from dcgan_dist.gan.convolution import Conv2d, ConvTranspose2d
from dcgan_dist.gan.description import PAPER, Layer, Net, Variant

STD = 0.02
LEAK = 0.2


class Generator(nn.Module):
    """z (n, z_size) -> pictures (n, 3, S, S) in (-1, 1)."""

    def __init__(self, net: Net, *, norm_eps: float, variant: Variant = PAPER) -> None:
        super().__init__()
        self.net, self.norm_eps, self.variant = net, norm_eps, variant
        first = net.g[0]
        self.project = nn.Linear(net.z_size, first.channels * first.side**2, bias=False)
        norm = partial(_norm, eps=norm_eps, there=variant.norm in ("paper", "everywhere"))
        # Normalised before the reshape: per unit, not per map (authors' code).
        self.project_norm = norm(first.channels * first.side**2)
        pairs = list(zip(net.g, net.g[1:], strict=False))
        self.convs = nn.ModuleList(_up(before, after, net.kernel) for before, after in pairs)
        self.norms = nn.ModuleList(norm(after.channels) for _, after in pairs[:-1])
        self.last_norm = _norm(net.image_channels, eps=norm_eps, there=variant.norm == "everywhere")

    def forward(self, z: Tensor) -> Tensor:
        first = self.net.g[0]
        h = functional.relu(self.project_norm(self.project(z)))
        h = h.view(-1, first.channels, first.side, first.side)
        for conv, norm in zip(self.convs[:-1], self.norms, strict=True):
            h = functional.relu(norm(conv(h)), inplace=True)
        drawn: Tensor = self.last_norm(self.convs[-1](h))
        return torch.tanh(drawn) if self.variant.output == "tanh" else drawn

    def replica(self) -> "Generator":
        """A second generator with the same weights, of the same type and place, that no rank shares."""
        with torch.device("meta"):  # no weights are drawn that are not kept
            twin = Generator(self.net, norm_eps=self.norm_eps, variant=self.variant)
        # Laid out as a network that is trained: else every step of a mean goes across the grain.
        twin.to(self.project.weight.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        twin.to_empty(device=self.project.weight.device)
        own, weights = self.state_dict(), twin.state_dict()
        torch._foreach_copy_(list(weights.values()), [own[name] for name in weights])
        return twin


class Discriminator(nn.Module):
    """Pictures (n, 3, S, S) in [-1, 1] -> logits (n,), positive for real."""

    def __init__(self, net: Net, *, norm_eps: float, variant: Variant = PAPER) -> None:
        super().__init__()
        self.net, self.norm_eps, self.variant = net, norm_eps, variant
        image = Layer(net.image_channels, net.image_size)
        pieces = 2 if variant.d_activation == "maxout" else 1
        self.convs = nn.ModuleList(
            _down(before, after, net.kernel, pieces=pieces)
            for before, after in zip((image, *net.d), net.d, strict=False)
        )
        norm = partial(_norm, eps=norm_eps, there=variant.norm in ("paper", "everywhere", "not_in_g"))
        self.first_norm = _norm(net.d[0].channels * pieces, eps=norm_eps, there=variant.norm == "everywhere")
        self.norms = nn.ModuleList(norm(layer.channels * pieces) for layer in net.d[1:])
        side = 1 if variant.head == "pooled" else net.d[-1].side
        self.logit = nn.Linear(net.d[-1].channels * side**2, 1, bias=False)

    def forward(self, images: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The logits of one batch; of several, which never share statistics, a tuple of them."""
        *_, last = self._layers([images, *others])
        weight = self._weight_by_place(last[0])
        logits = tuple(self._judge(h, weight) for h in last)
        return logits if others else logits[0]

    def maps(self, images: Tensor) -> list[Tensor]:
        """Each layer's maps after its activation, (n, channels, side, side)."""
        return [h for (h,) in self._layers([images])]

    def _layers(self, batches: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
        for conv, norm in zip(self.convs, (self.first_norm, *self.norms), strict=True):
            batches = [self._activate(h) for h in _apart(norm, [conv(h) for h in batches])]
            yield batches

    def _weight_by_place(self, h: Tensor) -> Tensor:
        """The logit's weights, which lie channel by channel, as maps like `h` lie: place by place."""
        channels, *sides = h.shape[1:]
        sides = [1, 1] if self.variant.head == "pooled" else sides
        return self.logit.weight.view(1, channels, *sides).permute(0, 2, 3, 1).flatten(1)

    def _judge(self, h: Tensor, weight: Tensor) -> Tensor:
        if self.variant.head == "pooled":
            h = h.mean((2, 3), keepdim=True)
        return functional.linear(h.permute(0, 2, 3, 1).flatten(1), weight).squeeze(1)

    def _activate(self, h: Tensor) -> Tensor:
        if self.variant.d_activation == "maxout":
            return torch.maximum(*h.chunk(2, dim=1))
        slope = LEAK if self.variant.d_activation == "leaky_relu" else 0.0
        return functional.leaky_relu(h, slope, inplace=True)


def _norm(features: int, *, eps: float, there: bool) -> nn.Module:
    return BatchNorm(features, eps=eps) if there else nn.Identity()


def _apart(norm: nn.Module, batches: Sequence[Tensor]) -> Sequence[Tensor]:
    """Every batch by its own statistics."""
    if isinstance(norm, BatchNorm) and len(batches) > 1:
        return norm.apart(batches)
    return [norm(h) for h in batches]


def _up(before: Layer, after: Layer, kernel: int) -> ConvTranspose2d:
    stride = after.side // before.side
    return ConvTranspose2d(
        before.channels,
        after.channels,
        kernel,
        stride=stride,
        padding=(kernel - 1) // 2,
        output_padding=kernel % 2 if stride == 2 else 0,
        bias=False,
    )


def _down(before: Layer, after: Layer, kernel: int, *, pieces: int) -> Conv2d:
    stride, channels = before.side // after.side, after.channels * pieces
    return Conv2d(before.channels, channels, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False)


@torch.no_grad()
def initialise(module: nn.Module, seed: int) -> None:
    """Draw all weights of one network on the CPU, so that every device and every rank starts the same."""
    draw = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.weight.copy_(STD * torch.randn(layer.weight.shape, generator=draw))
        elif isinstance(layer, BatchNorm) and layer.weight is not None and layer.bias is not None:
            layer.weight.copy_(1 + STD * torch.randn(layer.weight.shape, generator=draw))
            layer.bias.zero_()


def build(
    net: Net, *, norm_eps: float, seeds: tuple[int, int], variant: Variant = PAPER
) -> tuple[Generator, Discriminator]:
    """Both networks with fresh weights; `seeds` are those of G and of D."""
    g = Generator(net, norm_eps=norm_eps, variant=variant)
    d = Discriminator(net, norm_eps=norm_eps, variant=variant)
    initialise(g, seeds[0])
    initialise(d, seeds[1])
    return g, d
