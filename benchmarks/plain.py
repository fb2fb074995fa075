"""The training step as the well-known tutorials write it, for comparison: eager, float32, sigmoid and BCE,
one backward for the real and one for the fake batch, gradients of D computed and thrown away in G's step,
plain Adam.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from dcgan_dist.gan.description import Layer, Net
from dcgan_dist.training.players import keep_freed_memory


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


@dataclass(frozen=True)
class Switches:
    """What our step does otherwise than the tutorials' loop, one by one."""

    autocast: torch.dtype | None = None
    channels_last: bool = False
    fused_adam: bool = False
    frozen_d: bool = False  # no gradient of D's weights in G's step
    one_backward: bool = False  # for D's loss on the real and on the fake batch
    keep_memory: bool = False  # the C library keeps what was freed (CPU)


class PlainLoop:
    """D on real, D on fake, then G, on every minibatch."""

    def __init__(self, net: Net, device: torch.device, switches: Switches) -> None:
        if switches.keep_memory:
            keep_freed_memory()
        order = torch.channels_last if switches.channels_last else torch.contiguous_format
        self.g, self.d = (made(net).to(device, memory_format=order) for made in (_generator, _discriminator))
        for module in [*self.g.modules(), *self.d.modules()]:
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0, 0.02)
        self.optim_g, self.optim_d = (
            torch.optim.Adam(
                network.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=switches.fused_adam or None
            )
            for network in (self.g, self.d)
        )
        self.z_size, self.device, self.switches = net.z_size, device, switches

    def step(self, real: Tensor) -> None:
        """One step on `real`, (n, 3, S, S) in [-1, 1]."""
        n = len(real)
        self.d.zero_grad()
        on_real = self._loss(real, 1.0)
        if not self.switches.one_backward:
            on_real.backward()
        with self._cast():
            fake = self.g(torch.randn(n, self.z_size, 1, 1, device=self.device))
        on_fake = self._loss(fake.detach(), 0.0)
        (on_real + on_fake if self.switches.one_backward else on_fake).backward()
        self.optim_d.step()
        self.g.zero_grad()
        self.d.requires_grad_(not self.switches.frozen_d)
        self._loss(fake, 1.0).backward()
        self.d.requires_grad_(True)
        self.optim_g.step()

    def _loss(self, images: Tensor, label: float) -> Tensor:
        with self._cast():
            judged = self.d(images).flatten()
        return nn.functional.binary_cross_entropy(judged.float(), torch.full_like(judged.float(), label))

    def _cast(self) -> torch.autocast:
        dtype = self.switches.autocast
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)
