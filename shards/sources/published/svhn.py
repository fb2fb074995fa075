"""SVHN's cropped digits: `train_32x32.mat`, `test_32x32.mat`, `extra_32x32.mat`, 32 x 32 in ten classes.

In the file the digit 0 is class 10; here every label is the digit itself. (The authors of the paper take
y - 1, so their class 9 is the digit 0.) Kept out: the .mat format.
"""

from pathlib import Path

import numpy as np

from shards.errors import ShardsError
from shards.sources.downloads import check_download
from shards.sources.published.arrays import Arrays
from shards.sources.published.matlab import read_matlab

SPLITS = ("train", "test", "extra")


def open_svhn(path: str, split: str, *, verified: bool = True) -> Arrays:
    """The digits of `split` from the folder that holds the files, or from one file. Raises ShardsError."""
    file = Path(path) / f"{split}_32x32.mat" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ShardsError(f"{file} is not there; give the folder that holds {split}_32x32.mat")
    check_download(str(file), verified=verified)
    found = read_matlab(str(file), {"X": (32, 32, 3, None), "y": (None, 1)})
    pixels, labels = np.moveaxis(found["X"], 3, 0), found["y"][:, 0]
    if pixels.dtype != np.uint8 or len(pixels) != len(labels) or not len(labels):
        raise ShardsError(f"{file}: {len(labels)} labels for {len(pixels)} pictures of {pixels.dtype}")
    if labels.min() < 1 or labels.max() > 10 or (labels != labels.astype(np.uint8)).any():
        raise ShardsError(f"{file}: labels outside 1 to 10; it is not SVHN's")
    return Arrays("svhn", split, pixels, (labels % 10).astype(np.uint8), tuple("0123456789"))
