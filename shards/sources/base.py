"""Where pictures come from: one small file per origin, each a `Source`.

A source answers for any position on its own, so that processes can share the work, and it pickles.
Kept out: sizes, encodings and tars; a source knows pictures only.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SHOWN_KINDS = 20

SECOND_PICTURE = "further picture of a sample"
NO_SAMPLE = "file of no sample"
PACKED = "packed tar"
ODD_NUMBER = "json number of no finite value"
"""What readers of tars pass over."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture: encoded bytes or uint8 (h, w, 3), its class if it has one, and what else is known."""

    name: str
    image: bytes | NDArray[np.uint8]
    label: int | None = None
    meta: dict[str, Any] | None = None


@dataclass(slots=True)
class Passed:
    """What a source does not take for pictures: how many by kind, and the first of each kind."""

    counts: dict[str, int] = field(default_factory=dict)
    _first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        """Count one more; `kind` is an extension, or a few words that take an `s` where there are two."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._first.setdefault(kind, name)

    def join(self, other: "Passed") -> None:
        """Count those of `other` too."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            self._first.setdefault(kind, other._first[kind])

    def told(self, *, examples: bool = False) -> str:
        """Such as `15 .avif, 1 broken link`, the most frequent first."""
        ranked = sorted(self.counts.items(), key=lambda each: (-each[1], each[0]))
        lines = [
            f"{count} {kind if count == 1 or kind.startswith('.') else _plural(kind)}"
            + (f" ({self._first[kind]})" if examples else "")
            for kind, count in ranked[:SHOWN_KINDS]
        ]
        rest = sum(count for _, count in ranked[SHOWN_KINDS:])
        return ", ".join([*lines, f"{rest} more"] if rest else lines)


def passed_over(source: "Source") -> Passed:
    """What `source` has passed over; most take all that there is."""
    found: Passed = getattr(source, "passed_over", None) or Passed()
    return found


def _plural(kind: str) -> str:
    noun, of, rest = kind.partition(" of ") if " of " in kind else kind.partition(" without ")
    return f"{noun}s{of}{rest}"


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
