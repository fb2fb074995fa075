"""What D's last convolution looks for (paper, section 6.2, figure 5): guided backpropagation (Springenberg et
al. 2014), beside a D with random weights.

For each map the pictures with the largest activation, back-propagated from that single unit, and cropped to
its receptive field. The rule at LeakyReLU is unpublished: here a gradient passes where input and gradient are
both positive, as at ReLU.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from dcgan_dist import pictures
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.gan.model import LEAK, Discriminator
from dcgan_dist.judge import ground_truth
from dcgan_dist.judge.ground_truth import box_mask
from dcgan_dist.run_folder.finding import Finding, Measure
from dcgan_dist.run_folder.opened_run import Subject, to_tensor
from shards.arrays import U8

MAPS = 6
TOP = 5
POOL_IMAGES = 10000
SCORED_IMAGES = 2000
RANDOM_DRAWS = 3
ACTIVE = 0.05
"""Share of cells that count as active, as for small maps in GAN Dissection."""


class Field(NamedTuple):
    """What a unit at (row, column) sees: `size` pixels from `start + row * jump` on."""

    size: int
    jump: int
    start: int


def receptive_field(d: nn.Module) -> Field:
    """Of the last convolution."""
    size, jump, start = 1, 1, 0
    for conv in d.modules():
        if isinstance(conv, nn.Conv2d):
            kernel, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
            size, start = size + (kernel - 1) * jump, start - padding * jump
            jump *= stride
    return Field(size, jump, start)


class _Guided(Function):
    """LeakyReLU whose gradient passes only where input and gradient are positive."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return functional.leaky_relu(x, LEAK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        passed: Tensor = gradient.clamp(min=0) * (x > 0)
        return passed


def features(d: Discriminator, images: Tensor) -> Tensor:
    """The last convolution's maps after LeakyReLU, (n, channels, s, s), with guided gradients."""
    guided: Any = _Guided.apply
    h = images
    for conv, norm in zip(d.convs, (d.first_norm, *d.norms), strict=True):
        h = guided(norm(conv(h)))
    return h


@torch.no_grad()
def activations(d: Discriminator, images: U8) -> Tensor:
    """`features` of many pictures."""
    return torch.cat([features(d, part) for part in torch.split(to_tensor(images), 256)])


def tops(maps: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each map the pictures that excite it most, and where: picture, row, column, (channels, count)."""
    strengths, cells = maps.flatten(2).max(2)  # (n, channels): one tile for each picture
    best = strengths.topk(min(count, len(maps)), dim=0).indices.T
    cell = cells.T.gather(1, best)
    return best, cell // maps.shape[3], cell % maps.shape[3]


def saliency(d: Discriminator, images: Tensor, unit: tuple[int, Tensor, Tensor]) -> Tensor:
    """Guided gradient of one unit of the last convolution for each picture, (n, 3, S, S)."""
    images = images.detach().requires_grad_()
    number, rows, columns = unit
    excited = features(d, images)[torch.arange(len(images)), number, rows, columns]
    (gradient,) = torch.autograd.grad(excited.sum(), images)
    return gradient


def crop(image: Tensor, field: Field, *, row: int, column: int) -> Tensor:
    """(3, S, S) -> (3, size, size): what the unit sees; 0, which is grey, where it leaves the picture."""
    margin = field.size + abs(field.start)
    padded = functional.pad(image, (margin,) * 4)
    top, left = (margin + field.start + at * field.jump for at in (row, column))
    return padded[:, top : top + field.size, left : left + field.size]


def tiles(d: Discriminator, images: U8, maps: Tensor) -> U8:
    """The figure's tiles, map by map, best first: uint8 (MAPS x TOP, field, field, 3)."""
    field = receptive_field(d)
    best, rows, columns = tops(maps, TOP)
    found = []
    for number in range(min(MAPS, maps.shape[1])):
        seen = to_tensor(images[best[number].numpy()])
        gradients = saliency(d, seen, (number, rows[number], columns[number]))
        places = zip(gradients, rows[number].tolist(), columns[number].tolist(), strict=True)
        cut = torch.stack([crop(g, field, row=r, column=c) for g, r, c in places])
        found.append(cut / cut.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12))
    return pictures.to_uint8(torch.cat(found))


def overlap(maps: Tensor, masks: NDArray[np.bool_], *, active: float = ACTIVE) -> NDArray[np.float64]:
    """IoU, (channels, objects), of the share `active` of each map's cells with where each object is.

    `maps` (n, channels, s, s), enlarged bilinearly; `masks` (n, objects, S, S). GAN Dissection's measure.
    """
    side, found = masks.shape[2], np.zeros((maps.shape[1], masks.shape[1]))
    where = torch.from_numpy(masks).float().flatten(2)  # (n, objects, S x S)
    for number in range(maps.shape[1]):
        one = functional.interpolate(maps[:, number : number + 1], size=(side, side), mode="bilinear")
        lit = (one > _quantile(one, 1 - active)).float().flatten(2)  # (n, 1, S x S)
        both = (lit * where).sum((0, 2))
        found[number] = (both / (lit.sum() + where.sum((0, 2)) - both).clamp(min=1)).numpy()
    return found


def _quantile(values: Tensor, share: float) -> Tensor:
    flat = values.flatten()
    return flat.kthvalue(max(1, int(share * len(flat)))).values


def explore(subject: Subject) -> Finding:
    """Tiles of the first six maps, trained and random; IoU of all maps where boxes are known."""
    activation = subject.sampler.config.model.d_activation
    if activation != "leaky_relu":
        raise ConfigError(f"model.d_activation={activation}: guided gradients are for leaky_relu only")
    images, metas = subject.truth(POOL_IMAGES)
    trained, random = subject.discriminator(), subject.discriminator(random_seed=0)
    shown = {
        "Trained: the first six maps, five pictures each": trained,
        "Random weights: the same": random,
    }
    sheets = {}
    for caption, d in shown.items():
        sheets[caption] = pictures.png(
            pictures.grid(tiles(d, images, activations(d, images)), columns=TOP), scale=3
        )
    field = receptive_field(trained)
    notes = [f"Tiles are the receptive field, {field.size} pixels; grey where it leaves the picture."]
    if not any(meta.get("boxes") for meta in metas):
        notes.append("No boxes in the data, so what the maps look for is judged by eye alone.")
        return Finding("filters", "What D looks for", "figure 5", [], notes, sheets)
    notes.append(
        "IoU: the most active 5 % of cells with the best object's boxes, less the same with boxes shuffled."
    )
    return Finding(
        "filters", "What D looks for", "figure 5", _measures(subject, images, metas), notes, sheets
    )


def _measures(subject: Subject, images: U8, metas: list[dict[str, Any]]) -> list[Measure]:
    images, told = images[:SCORED_IMAGES], ground_truth.read(metas[:SCORED_IMAGES], where=subject.data)
    side = images.shape[1] // 2
    masks = np.stack(
        [
            np.stack([box_mask([boxes[n]] if n in boxes else [], side) for n in told.objects])
            for boxes in told.boxes
        ]
    )
    shuffled = masks[np.random.default_rng(subject.seed).permutation(len(masks))]

    def score(d: Discriminator) -> tuple[float, float]:
        maps = activations(d, images)
        gain = (overlap(maps, masks) - overlap(maps, shuffled)).max(1)
        return float(gain.mean()), float((gain > 0.05).mean())

    trained = score(subject.discriminator())
    random = np.array([score(subject.discriminator(random_seed=i)) for i in range(RANDOM_DRAWS)])
    measures = []
    for i, name in enumerate(("IoU above chance, mean of maps", "maps with IoU 0.05 above chance, share")):
        mean, sd = float(random[:, i].mean()), float(random[:, i].std(ddof=1))
        limit = mean + 3 * sd
        rule = f"above random + 3 sd, {limit:.3f}"
        measures.append(Measure(f"{name}: trained", trained[i], rule=rule, passed=trained[i] > limit))
        measures.append(Measure(f"{name}: random ({RANDOM_DRAWS} draws)", mean, mean - sd, mean + sd))
    return measures
