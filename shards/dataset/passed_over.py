"""What a source or an index does not take for pictures, counted by kind and named."""

from dataclasses import dataclass, field

SHOWN_KINDS = 20

SECOND_PICTURE = "further picture of a sample"
NO_SAMPLE = "file of no sample"
PACKED = "packed tar"
ODD_NUMBER = "json number of no finite value"
"""What readers of tars pass over."""


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


def _plural(kind: str) -> str:
    noun, of, rest = kind.partition(" of ") if " of " in kind else kind.partition(" without ")
    return f"{noun}s{of}{rest}"
