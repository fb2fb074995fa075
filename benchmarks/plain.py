"""The training step as the well-known tutorials write it, for comparison: eager, float32, sigmoid and BCE,
one backward for the real and one for the fake batch, gradients of D computed and thrown away in G's step,
plain Adam.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from dcgan_dist.nets import Layer, Net


def _generator(net: Net) -> nn.Sequential:
    first = net.g[0]
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(net.z_size, first.channels, first.side, bias=False),
        nn.BatchNorm2d(first.channels),
        nn.ReLU(True),
    ]
    for before, after in pairwise(net.g):
        stride, padding = after.side // before.side, (net.kernel - 1) // 2
        extra = net.kernel % 2 if stride == 2 else 0
        layers.append(
            nn.ConvTranspose2d(
                before.channels, after.channels, net.kernel, stride, padding, extra, bias=False
            )
        )
        last = after is net.g[-1]
        layers += [nn.Tanh()] if last else [nn.BatchNorm2d(after.channels), nn.ReLU(True)]
    return nn.Sequential(*layers)


def _discriminator(net: Net) -> nn.Sequential:
    layers: list[nn.Module] = []
    image = Layer(net.image_channels, net.image_size)
    for before, after in pairwise((image, *net.d)):
        stride, padding = before.side // after.side, (net.kernel - 1) // 2
        layers.append(nn.Conv2d(before.channels, after.channels, net.kernel, stride, padding, bias=False))
        if after is not net.d[0]:
            layers.append(nn.BatchNorm2d(after.channels))
        layers.append(nn.LeakyReLU(0.2, True))
    layers += [nn.Conv2d(net.d[-1].channels, 1, net.d[-1].side, bias=False), nn.Sigmoid()]
    return nn.Sequential(*layers)


class PlainLoop:
    """D on real, D on fake, then G, on every minibatch."""

    def __init__(self, net: Net, device: torch.device, *, autocast: torch.dtype | None = None) -> None:
        self.g, self.d = _generator(net).to(device), _discriminator(net).to(device)
        for module in [*self.g.modules(), *self.d.modules()]:
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0, 0.02)
        self.optim_g = torch.optim.Adam(self.g.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.optim_d = torch.optim.Adam(self.d.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.z_size, self.device, self.autocast = net.z_size, device, autocast

    def step(self, real: Tensor) -> None:
        """One step on `real`, (n, 3, S, S) in [-1, 1]."""
        n = len(real)
        self.d.zero_grad()
        self._loss(real, 1.0).backward()
        with self._cast():
            fake = self.g(torch.randn(n, self.z_size, 1, 1, device=self.device))
        self._loss(fake.detach(), 0.0).backward()
        self.optim_d.step()
        self.g.zero_grad()
        self._loss(fake, 1.0).backward()
        self.optim_g.step()

    def _loss(self, images: Tensor, label: float) -> Tensor:
        with self._cast():
            judged = self.d(images).flatten()
        return nn.functional.binary_cross_entropy(judged.float(), torch.full_like(judged.float(), label))

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)
