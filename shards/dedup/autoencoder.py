"""The paper's 3072-128-3072 autoencoder: denoising, dropout-regularised, ReLU (section 4.1.1).

Noise, dropout rates, loss and optimiser are not published; these worked on drawn pictures. A batch is cut
into chunks, each computed by itself on one thread, and gradients are added as whole numbers (below
2**53, in float64): any number of ranks and threads trains the same encoder. Kept out: hashing.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.dataset.splitmix import mix
from shards.dedup.hashing import BITS, Encoder, fold_encoder
from shards.dedup.processes import Ranks
from shards.dedup.thumbnails import THUMB_BYTES, Thumbs
from shards.errors import ShardsError

BATCH_IMAGES = 128
CHUNK_IMAGES = 32
NOISE = 0.3
INPUT_DROPOUT = 0.2
CODE_DROPOUT = 0.5
LEARNING_RATE = 1e-3
PIXEL_SCALE = 0.25
"""Pixels in [0, 1] less their mean, divided by this."""

GRADIENT_UNIT = 2.0**-45
"""Gradients are rounded to multiples of this before they are added."""


def train_encoder(thumbs: Thumbs, ranks: Ranks, *, epochs: int, seed: int = 0) -> Encoder:
    """The encoder trained on `thumbs`, the same on every rank. Raises ShardsError where it diverges."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        mean = thumbs.mean(axis=0, dtype=np.float64) / 255
        weights = _train(thumbs, torch.from_numpy(mean).float(), ranks, epochs, seed)
    finally:
        torch.set_num_threads(threads)
    encode, bias = (weight.detach().numpy().astype(np.float64) for weight in weights[:2])
    return fold_encoder(encode, bias, mean)


def _train(thumbs: Thumbs, mean: Tensor, ranks: Ranks, epochs: int, seed: int) -> list[Tensor]:
    weights = _first_weights(seed)
    optimiser = torch.optim.Adam(weights, LEARNING_RATE, fused=True)
    batch_images, step = min(BATCH_IMAGES, len(thumbs)), 0
    total = torch.zeros(sum(weight.numel() for weight in weights), dtype=torch.float64)
    for epoch in range(epochs):
        order = np.argsort(
            mix(np.arange(len(thumbs), dtype=np.uint64) + np.uint64((seed + 1) << 48 | epoch << 32))
        )
        for start in range(0, len(thumbs) - batch_images + 1, batch_images):
            batch = order[start : start + batch_images]
            total.zero_()
            for chunk, at in enumerate(range(0, len(batch), CHUNK_IMAGES)):
                if chunk % ranks.ranks == ranks.rank:
                    clean = _standardised(thumbs[batch[at : at + CHUNK_IMAGES]], mean)
                    _add_gradient(total, weights, clean, _dice(seed, step, chunk), batch_images)
            ranks.sum_(total)
            _set_gradients(weights, total)
            optimiser.step()
            step += 1
    return weights


def _first_weights(seed: int) -> list[Tensor]:
    """Encoder weights (3072, 128) and bias, decoder weights (128, 3072) and bias."""
    dice = torch.Generator().manual_seed(seed)
    encode = torch.randn(THUMB_BYTES, BITS, generator=dice) * THUMB_BYTES**-0.5
    decode = torch.randn(BITS, THUMB_BYTES, generator=dice) * BITS**-0.5
    return [
        weight.requires_grad_() for weight in (encode, torch.zeros(BITS), decode, torch.zeros(THUMB_BYTES))
    ]


def _standardised(rows: NDArray[np.uint8], mean: Tensor) -> Tensor:
    return (torch.from_numpy(rows).float() / 255 - mean) / PIXEL_SCALE


def _dice(seed: int, step: int, chunk: int) -> torch.Generator:
    place = np.array([(seed + 1) << 40 | step << 8 | chunk], np.uint64)
    return torch.Generator().manual_seed(int(mix(place)[0] >> np.uint64(1)))


def _add_gradient(
    total: Tensor, weights: list[Tensor], clean: Tensor, dice: torch.Generator, batch_images: int
) -> None:
    """Add the chunk's part of the batch's gradient to `total`, in whole units of GRADIENT_UNIT."""
    encode, encode_bias, decode, decode_bias = weights
    noisy = clean + NOISE * torch.randn(clean.shape, generator=dice)
    noisy = noisy * (torch.rand(clean.shape, generator=dice) >= INPUT_DROPOUT) / (1 - INPUT_DROPOUT)
    code = (noisy @ encode + encode_bias).relu()
    code = code * (torch.rand(code.shape, generator=dice) >= CODE_DROPOUT) / (1 - CODE_DROPOUT)
    loss = (code @ decode + decode_bias - clean).square().mean(dim=1).sum() / batch_images
    if not loss.isfinite():
        raise ShardsError("the autoencoder's loss is no longer finite; report the dataset, please")
    flat = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, weights)])
    total += flat.double().div_(GRADIENT_UNIT).round_()


def _set_gradients(weights: list[Tensor], total: Tensor) -> None:
    flat = (total * GRADIENT_UNIT).float()
    for weight, part in zip(weights, torch.split(flat, [weight.numel() for weight in weights]), strict=True):
        weight.grad = part.view_as(weight)
