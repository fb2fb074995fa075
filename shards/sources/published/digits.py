"""The 1,797 real handwritten digits that come with scikit-learn: 8 x 8 pixels, grey 0 to 16, ten classes.

They come in no parts; here `train` is 1,097 of them, `validation` 300 and `test` 400, shuffled by numpy's
RandomState(42). Kept out: enlarging them, which the build does.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import ShardsError
from shards.extras import install
from shards.sources.base import Item

PARTS = {"train": slice(0, 1097), "validation": slice(1097, 1397), "test": slice(1397, None)}
SHUFFLE_SEED = 42


class Digits:
    """All digits in scikit-learn's order, or one of PARTS."""

    classes = tuple("0123456789")
    meta_bytes = 64

    def __init__(self, split: str = "all") -> None:
        pixels, labels = _load()
        order = np.arange(len(labels))
        if split != "all":
            order = np.random.RandomState(SHUFFLE_SEED).permutation(order)[PARTS[split]]
        self._pixels, self._labels, self._split = pixels[order], labels[order], split

    @property
    def samples(self) -> int:
        """The number of pictures."""
        return len(self._labels)

    def settings(self) -> dict[str, Any]:
        """What tells this source from another."""
        sums = hashlib.sha256(self._pixels.tobytes() + self._labels.tobytes()).hexdigest()
        split = {} if self._split == "all" else {"split": self._split}
        return {"source": "digits", "images": self.samples, "pixels_sha256": sums, **split}

    def item(self, position: int) -> Item:
        """The digit at `position` as RGB, its label the digit itself."""
        image = np.repeat(self._pixels[position][:, :, None], 3, axis=2)
        return Item(f"digit-{position:04d}", image, int(self._labels[position]))


def _load() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    try:
        # Here and not at the top, because it is an extra and takes a second.
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ShardsError(f"digits needs scikit-learn: {install('digits')}") from error
    found = load_digits()
    return np.round(found.images * (255 / 16)).astype(np.uint8), found.target.astype(np.uint8)
