"""Forgetting windows (paper, section 6.3.1, figure 6), beside two controls the paper lacks: as many random
maps, and maps ranked by IoU (GAN Dissection, Bau et al. 2019).

Cells of G's second highest convolution layer whose centre lies in a window's box are positive, as many random
cells of the same pictures outside all boxes negative; a logistic regression on the cell's maps; every map
with a positive weight is set to zero, everywhere, after ReLU.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dcgan_dist.explore.filters import overlap
from dcgan_dist.gan.model import Generator
from dcgan_dist.judge.ground_truth import box_mask
from dcgan_dist.run_folder.finding import ExploreError

Boxes = Sequence[Sequence[Sequence[float]]]
"""For each picture its boxes: left, top, right, bottom in fractions of the side."""

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


def layer_number(g: Generator, name: str | None) -> int:
    """The place of `512@8` in the generator; its second layer by default. Raises ExploreError."""
    hidden = [f"{layer.channels}@{layer.side}" for layer in g.net.g[:-1]]
    if name is None:
        return min(1, len(hidden) - 1)
    if name not in hidden:
        raise ExploreError(f"no layer {name!r} in the generator; there are: {', '.join(hidden)}")
    return hidden.index(name)


@contextmanager
def _hooked(g: Generator, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass the layer's maps after ReLU, (n, channels, s, s), through `change`."""
    norm = g.project_norm if layer == 0 else g.norms[layer - 1]
    shape = g.net.g[layer]

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        maps = functional.relu(out).view(-1, shape.channels, shape.side, shape.side)
        # G applies ReLU once more, which changes nothing.
        return change(maps).reshape(out.shape)

    handle = norm.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def maps_of(g: Generator, z: Tensor, layer: int) -> Tensor:
    """The maps of one layer after ReLU, (n, channels, s, s)."""
    kept: list[Tensor] = []

    def keep(maps: Tensor) -> Tensor:
        kept.append(maps.clone())
        return maps

    with _hooked(g, layer, keep):
        for part in torch.split(z, 256):
            g(part)
    return torch.cat(kept)


@contextmanager
def without(g: Generator, layer: int, dropped: NDArray[np.bool_]) -> Iterator[None]:
    """Inside the block, `g` draws with these maps (channels,) set to zero."""
    stay = torch.from_numpy(~dropped).float().view(1, -1, 1, 1)
    with _hooked(g, layer, lambda maps: maps * stay):
        yield


def cells(maps: Tensor, boxes: Boxes, *, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rows of maps (cells, channels) and whether each lies in a box; as many outside as inside.

    Raises ExploreError where no cell's centre lies in any box.
    """
    inside = np.stack([box_mask(each, maps.shape[2]) for each in boxes])
    with_any = inside.any(axis=(1, 2), keepdims=True)
    outside = ~inside & with_any
    positive, negative = np.flatnonzero(inside), np.flatnonzero(outside)
    if not len(positive) or not len(negative):
        raise ExploreError(
            f"of {len(boxes)} pictures, {int(with_any.sum())} have a box that holds the centre of a cell of "
            f"{maps.shape[2]}x{maps.shape[2]}; label more pictures, or take a layer of more cells"
        )
    chosen = np.random.default_rng(seed).permutation(negative)[: len(positive)]
    rows = maps.permute(0, 2, 3, 1).flatten(0, 2).numpy().astype(np.float64)
    taken = np.concatenate([positive, chosen])
    return rows[taken], np.arange(len(taken)) < len(positive)


def logistic_weights(
    rows: NDArray[np.float64], positive: NDArray[np.bool_], *, c: float = 1.0
) -> NDArray[np.float64]:
    """Logistic regression as scikit-learn's default: 0.5 |w|^2 + c sum(log loss), the bias free."""
    x, y = torch.from_numpy(rows), torch.from_numpy(positive).double() * 2 - 1
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optim = torch.optim.LBFGS(
        [weights], max_iter=2000, tolerance_grad=1e-6, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optim.zero_grad()
        margins = y * (x @ weights[:-1] + weights[-1])
        value = 0.5 * weights[:-1] @ weights[:-1] + c * functional.softplus(-margins).sum()
        torch.autograd.backward(value)
        return value

    optim.step(loss)  # type: ignore[no-untyped-call]
    return weights[:-1].detach().numpy()


def overlaps(maps: Tensor, boxes: Boxes, *, size: int) -> NDArray[np.float64]:
    """IoU of each map's most active cells, enlarged to `size` pixels, with the boxes; (channels,).

    The most active 2 % count, 5 % on a 4x4 map.
    """
    masks = np.stack([box_mask(each, size) for each in boxes])[:, None]
    return overlap(maps, masks, active=0.05 if maps.shape[2] <= 4 else 0.02)[:, 0]


def strongest(scores: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """The `count` highest."""
    chosen = np.zeros(len(scores), np.bool_)
    chosen[np.argsort(-scores, kind="stable")[:count]] = True
    return chosen
