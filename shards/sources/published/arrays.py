"""Pictures of one size held in memory with their labels, as the small published sets come.

Kept out: the file formats, one module each.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.sources.base import Item


@dataclass(frozen=True, slots=True)
class Arrays:
    """The pictures of one split: uint8 (n, h, w) grey or (n, h, w, 3), and uint8 (n,) labels."""

    name: str
    split: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    classes: tuple[str, ...]
    meta_bytes: int = 64

    def __post_init__(self) -> None:
        assert len(self.pixels) == len(self.labels)

    @property
    def samples(self) -> int:
        """The number of pictures."""
        return len(self.labels)

    def settings(self) -> dict[str, Any]:
        """What tells this source from another: the pixels themselves, not the file they came in."""
        total = hashlib.sha256(self.labels.tobytes())
        for start in range(0, self.samples, 4096):
            total.update(self.pixels[start : start + 4096].tobytes())
        return {
            "source": self.name,
            "split": self.split,
            "images": self.samples,
            "pixels_sha256": total.hexdigest(),
        }

    def item(self, position: int) -> Item:
        """The picture at `position` as RGB."""
        image = self.pixels[position]
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        name = f"{self.name}-{self.split}-{position:06d}"
        return Item(name, np.ascontiguousarray(image), int(self.labels[position]))
