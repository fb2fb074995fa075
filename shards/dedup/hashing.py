"""Thumbnails to hashes: 128 bits of the autoencoder, 64 of a perceptual hash, 48 bytes of colours; all exact.

Whole numbers throughout: every product and sum stays below 2**53, so that float64 holds it exactly and no
order of adding, library, thread or machine changes a bit. Kept out: training the encoder.
"""

import numpy as np
from numpy.typing import NDArray

from shards.dedup.thumbnails import SIDE, THUMB_BYTES, Thumbs

BITS = 128
WEIGHT_BITS = 20
"""Encoder weights as whole numbers below 2**20: 3072 x 255 x 2**20 is below 2**40."""

ROWS = 1024
"""Thumbnails at a time: 25 MB as float64."""

Encoder = NDArray[np.int64]
"""(3073, 128): weights per pixel of 0 to 255, and the bias in the last row."""

WORD_BYTES = (BITS + 64) // 8
CELLS = 4
"""Colours are means over 4 x 4 cells of 8 x 8 pixels."""

ROW_BYTES = WORD_BYTES + CELLS * CELLS * 3


def fold_encoder(
    weights: NDArray[np.float64], bias: NDArray[np.float64], mean: NDArray[np.float64]
) -> Encoder:
    """The encoder of `(pixel / 255 - mean) / 0.25` as whole numbers on pixels of 0 to 255.

    `weights` (3072, 128), `bias` (128,), `mean` (3072,).
    """
    folded = weights / 0.25
    offset = bias - mean @ folded
    scale = 2.0 ** (WEIGHT_BITS - np.ceil(np.log2(np.abs(folded / 255).max() + 1e-30)))
    whole = np.vstack([np.round(folded / 255 * scale), np.round(offset * scale)])
    assert np.abs(whole[:-1]).max() <= 2**WEIGHT_BITS
    return whole.astype(np.int64)


def hash_thumbs(encoder: Encoder | None, thumbs: Thumbs) -> NDArray[np.uint8]:
    """(n, 72): 16 bytes of the code, of zeros without an encoder, 8 of the perceptual hash, 48 of colours."""
    out = np.zeros((len(thumbs), ROW_BYTES), np.uint8)
    weights = None if encoder is None else encoder.astype(np.float64)
    for start in range(0, len(thumbs), ROWS):
        rows = thumbs[start : start + ROWS].astype(np.float64)
        if weights is not None:
            active = rows @ weights[:-1] + weights[-1] > 0
            out[start : start + ROWS, : BITS // 8] = np.packbits(active, axis=1)
        out[start : start + ROWS, BITS // 8 : WORD_BYTES] = np.packbits(_perceptual(rows), axis=1)
        out[start : start + ROWS, WORD_BYTES:] = _colours(rows)
    return out


def as_words(hashes: NDArray[np.uint8], *, perceptual: bool) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The hashes as two 64-bit numbers each; the first is 0 of a perceptual one."""
    words = np.ascontiguousarray(hashes[:, :WORD_BYTES]).view(">u8").astype(np.uint64)
    return (np.zeros_like(words[:, 2]), words[:, 2]) if perceptual else (words[:, 0], words[:, 1])


def colours(hashes: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The colours in the hashes, (n, 48)."""
    return hashes[:, WORD_BYTES:].astype(np.int16)


def _colours(rows: NDArray[np.float64]) -> NDArray[np.uint8]:
    side = SIDE // CELLS
    sums = rows.reshape(-1, CELLS, side, CELLS, side, 3).sum(axis=(2, 4))
    means: NDArray[np.uint8] = (sums // (side * side)).astype(np.uint8).reshape(len(rows), -1)
    return means


def _cosines() -> NDArray[np.float64]:
    """The 8 lowest frequencies of a DCT of 32 numbers, as whole numbers; (8, 32)."""
    angle = np.pi * np.arange(8)[:, None] * (2 * np.arange(SIDE) + 1) / (2 * SIDE)
    return np.round(np.cos(angle) * 2**11)


def _perceptual(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """64 bits: which of the 8 x 8 lowest frequencies of the grey picture are at least their median.

    As imagededup's PHash: the median leaves out the mean brightness. `rows` is (n, 3072).
    """
    red, green, blue = np.moveaxis(rows.reshape(-1, SIDE, SIDE, 3), 3, 0)
    grey = 299 * red + 587 * green + 114 * blue
    cosines = _cosines()
    low = (cosines @ grey @ cosines.T).reshape(-1, 64)
    return low >= np.median(low[:, 1:], axis=1, keepdims=True)


assert THUMB_BYTES * 255 * 2**WEIGHT_BITS < 2**53
