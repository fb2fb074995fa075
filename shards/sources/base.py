"""Where pictures come from: one small file per origin, each a `Source`.

A source answers for any position on its own, so that processes can share the work, and it pickles.
Kept out: sizes, encodings and tars; a source knows pictures only.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shards.dataset.passed_over import Passed


@dataclass(frozen=True, slots=True)
class Item:
    """One picture: encoded bytes or uint8 (h, w, 3), its class if it has one, and what else is known."""

    name: str
    image: bytes | NDArray[np.uint8]
    label: int | None = None
    meta: dict[str, Any] | None = None


def passed_over(source: "Source") -> Passed:
    """What `source` has passed over; most take all that there is."""
    found: Passed = getattr(source, "passed_over", None) or Passed()
    return found


class Source(Protocol):
    """A row of pictures, each reached by its position."""

    @property
    def samples(self) -> int:
        """The number of pictures."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels; empty without labels."""

    @property
    def meta_bytes(self) -> int:
        """The most bytes that an item's name, label and meta take as JSON; 0 for any number of them."""

    def settings(self) -> dict[str, Any]:
        """What tells this source from another, as JSON; no path of this machine."""

    def item(self, position: int) -> Item | tuple[Item, ...]:
        """The picture at `position`, or all that it gives. Raises ImageError without one, FileNotFoundError
        where its file is gone, and OSError or ShardsError where the storage fails.
        """
