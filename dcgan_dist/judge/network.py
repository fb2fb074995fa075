"""The judge's network: pictures -> attributes, and masks of where each object is. Small and supervised.

Kept out: what it is taught and how it is believed; see `judge.py`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 24


class JudgeNet(nn.Module):
    """(n, 3, S, S) in [-1, 1] -> (n, attributes) and (n, objects, S/2, S/2), logits or standardised."""

    def __init__(self, attributes: int, objects: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(_conv(3, WIDTH, stride=2), _conv(WIDTH, 2 * WIDTH, stride=1))
        self.medium = _conv(2 * WIDTH, 4 * WIDTH, stride=2)
        self.coarse = _conv(4 * WIDTH, 4 * WIDTH, stride=2)
        self.attributes = nn.Sequential(
            nn.Linear(4 * WIDTH * 16, 96), nn.ReLU(), nn.Linear(96, max(1, attributes))
        )
        self.masks = nn.ModuleList(nn.Conv2d(k * WIDTH, max(1, objects), 1) for k in (2, 4, 4))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(images)
        medium = self.medium(fine)
        coarse = self.coarse(medium)
        side = fine.shape[-1]
        masks = self.masks[0](fine)
        for layer, features in zip(self.masks[1:], (medium, coarse), strict=True):
            masks = masks + functional.interpolate(layer(features), size=(side, side), mode="bilinear")
        pooled = functional.adaptive_avg_pool2d(coarse, 4).flatten(1)
        return self.attributes(pooled), masks


def _conv(before: int, after: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 5 if before == 3 else 3, stride, 2 if before == 3 else 1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


def disturb(images: Tensor, draw: torch.Generator) -> Tensor:
    """Pictures as a generator might draw them: some blurred, some noisy, all a little off in colour."""
    n = len(images)
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    some = torch.rand(n, 1, 1, 1, generator=draw)
    images = torch.lerp(images, blurred, (some * 1.6 - 0.6).clamp(min=0))
    noise = torch.rand(n, 1, 1, 1, generator=draw) * 0.12 * torch.randn(images.shape, generator=draw)
    tint = 0.06 * torch.randn(n, 3, 1, 1, generator=draw)
    return (images + noise + tint).clamp(-1, 1)
