"""MNIST and sets of its kind: `idx` files, packed with gzip or not, 28 x 28 grey, ten classes.

Kept out: downloading.
"""

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from shards.errors import ShardsError
from shards.sources.downloads import check_download, read_bounded
from shards.sources.published.arrays import Arrays

PREFIXES = {"train": "train", "test": "t10k"}
MAX_FILE_BYTES = 2**30
UINT8 = 0x08
"""The type of the numbers, third byte of an idx file; the fourth counts the dimensions."""


def open_mnist(path: str, split: str, *, verified: bool = True) -> Arrays:
    """The digits of `split` from the folder `path` of idx files. Raises ShardsError."""
    prefix = PREFIXES[split]
    pixels = _read(Path(path), f"{prefix}-images", 3, verified=verified)
    labels = _read(Path(path), f"{prefix}-labels", 1, verified=verified)
    if len(pixels) != len(labels) or not len(labels) or labels.max() > 9:
        raise ShardsError(f"{path}: {len(pixels)} pictures with {len(labels)} labels, not all in [0, 9]")
    return Arrays("mnist", split, pixels, labels, tuple("0123456789"))


def _read(folder: Path, stem: str, dimensions: int, *, verified: bool) -> NDArray[np.uint8]:
    names = [f"{stem}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in (".gz", "")]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise ShardsError(f"{folder} has no {names[0]}; give the folder of the four files of MNIST")
    check_download(str(path), verified=verified)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = read_bounded(cast(BinaryIO, stream), MAX_FILE_BYTES, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise ShardsError(f"{path} is cut short or damaged ({error}); download it again") from error
    return parse_idx(data, dimensions, where=str(path))


def parse_idx(data: bytes, dimensions: int, *, where: str) -> NDArray[np.uint8]:
    """The uint8 array of an idx file: a magic number, big-endian sizes, then the numbers."""
    start = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, UINT8, dimensions]) or len(data) < start:
        raise ShardsError(f"{where} is no idx file of {dimensions} dimensions (it begins {data[:4]!r})")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, offset=4))
    length = start + int(np.prod([float(size) for size in shape]))
    if len(data) != length:
        raise ShardsError(f"{where} has {len(data)} bytes, its shape {shape} asks for {length}; it is cut")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
