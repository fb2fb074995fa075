"""The two networks of the DCGAN paper (section 3 and figure 1), from the description in `nets.py`.

No bias anywhere, batch norm on every layer but G's output and D's input, weights drawn from N(0, 0.02), gains
from N(1, 0.02): the authors' released code, where the paper is silent. Pictures are (n, 3, S, S) in [-1, 1].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcgan_dist.nets import Layer, Net
from dcgan_dist.syncbn import BatchNorm

STD = 0.02
LEAK = 0.2


class Generator(nn.Module):
    """z (n, z_size) -> pictures (n, 3, S, S) in (-1, 1)."""

    def __init__(self, net: Net, *, norm_eps: float) -> None:
        super().__init__()
        self.net, self.norm_eps = net, norm_eps
        first = net.g[0]
        self.project = nn.Linear(net.z_size, first.channels * first.side**2, bias=False)
        # Normalised before the reshape: per unit, not per map (authors' code).
        self.project_norm = BatchNorm(first.channels * first.side**2, eps=norm_eps)
        pairs = list(zip(net.g, net.g[1:], strict=False))
        self.convs = nn.ModuleList(_up(before, after, net.kernel) for before, after in pairs)
        self.norms = nn.ModuleList(BatchNorm(after.channels, eps=norm_eps) for _, after in pairs[:-1])

    def forward(self, z: Tensor) -> Tensor:
        first = self.net.g[0]
        h = functional.relu(self.project_norm(self.project(z)))
        h = h.view(-1, first.channels, first.side, first.side)
        for conv, norm in zip(self.convs[:-1], self.norms, strict=True):
            h = functional.relu(norm(conv(h)), inplace=True)
        return torch.tanh(self.convs[-1](h))

    def replica(self) -> "Generator":
        """A second generator with the same weights, of the same type and place, that no rank shares."""
        twin = Generator(self.net, norm_eps=self.norm_eps).to(self.project.weight)
        twin.load_state_dict(self.state_dict())
        return twin


class Discriminator(nn.Module):
    """Pictures (n, 3, S, S) in [-1, 1] -> logits (n,), positive for real."""

    def __init__(self, net: Net, *, norm_eps: float) -> None:
        super().__init__()
        self.net = net
        image = Layer(net.image_channels, net.image_size)
        self.convs = nn.ModuleList(
            _down(before, after, net.kernel) for before, after in zip((image, *net.d), net.d, strict=False)
        )
        self.norms = nn.ModuleList(BatchNorm(layer.channels, eps=norm_eps) for layer in net.d[1:])
        self.logit = nn.Linear(net.d[-1].channels * net.d[-1].side ** 2, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        h = functional.leaky_relu(self.convs[0](images), LEAK, inplace=True)
        for conv, norm in zip(self.convs[1:], self.norms, strict=True):
            h = functional.leaky_relu(norm(conv(h)), LEAK, inplace=True)
        # contiguous: a channels_last map must flatten channel by channel all the same.
        logits: Tensor = self.logit(h.contiguous().flatten(1)).squeeze(1)
        return logits


def _up(before: Layer, after: Layer, kernel: int) -> nn.ConvTranspose2d:
    stride = after.side // before.side
    return nn.ConvTranspose2d(
        before.channels,
        after.channels,
        kernel,
        stride=stride,
        padding=(kernel - 1) // 2,
        output_padding=kernel % 2 if stride == 2 else 0,
        bias=False,
    )


def _down(before: Layer, after: Layer, kernel: int) -> nn.Conv2d:
    stride = before.side // after.side
    return nn.Conv2d(
        before.channels, after.channels, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False
    )


@torch.no_grad()
def initialise(module: nn.Module, seed: int) -> None:
    """Draw all weights of one network on the CPU, so that every device and every rank starts the same."""
    draw = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.weight.copy_(STD * torch.randn(layer.weight.shape, generator=draw))
        elif isinstance(layer, BatchNorm):
            layer.weight.copy_(1 + STD * torch.randn(layer.weight.shape, generator=draw))
            layer.bias.zero_()


def build(net: Net, *, norm_eps: float, seeds: tuple[int, int]) -> tuple[Generator, Discriminator]:
    """Both networks with fresh weights; `seeds` are those of G and of D."""
    g, d = Generator(net, norm_eps=norm_eps), Discriminator(net, norm_eps=norm_eps)
    initialise(g, seeds[0])
    initialise(d, seeds[1])
    return g, d


def draw_noise(images: int, z_size: int, *, kind: str, seed: int) -> Tensor:
    """z, (images, z_size) float32 on the CPU: uniform on (-1, 1) (paper) or standard normal."""
    draw = torch.Generator().manual_seed(seed)
    if kind == "normal":
        return torch.randn(images, z_size, generator=draw)
    return torch.rand(images, z_size, generator=draw) * 2 - 1
