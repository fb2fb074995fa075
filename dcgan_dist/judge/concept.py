"""Concepts in words: `window=1,bright=0` or `yaw>20,glasses=0`, and what A - B + C should show.

Kept out: who says what a picture shows; see `judge.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcgan_dist.run_folder.finding import ExploreError

Values = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Concept:
    """Conditions by attribute: an operator (= < >) and a number each."""

    rules: Mapping[str, tuple[str, float]]

    def holds(self, values: Values) -> NDArray[np.bool_]:
        """Which pictures show it; `values` are by attribute, binary ones as probabilities."""
        met = [_meets(values[name], *rule) for name, rule in self.rules.items()]
        return np.asarray(np.logical_and.reduce(met))

    def __str__(self) -> str:
        return ", ".join(f"{name} {op} {value:g}" for name, (op, value) in self.rules.items())


def _meets(values: NDArray[np.float32], operator: str, wanted: float) -> NDArray[np.bool_]:
    if operator == "=":
        return np.asarray((values > 0.5) == (wanted > 0.5))
    return np.asarray(values > wanted if operator == ">" else values < wanted)


def parse(text: str, names: Mapping[str, bool]) -> Concept:
    """`names` says of each attribute whether it is binary. Raises ExploreError."""
    rules = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(.+?)\s*([=<>])\s*(-?[\d.]+)\s*", part)
        if match is None:
            raise ExploreError(f"{part!r} of {text!r} is not a condition like glasses=1 or yaw>20")
        name, operator, value = match[1], match[2], _number(match[3], text)
        if name not in names:
            raise ExploreError(f"{text!r}: no attribute {name!r}; there are: {', '.join(sorted(names))}")
        if names[name] and (operator != "=" or value not in (0, 1)):
            raise ExploreError(f"{text!r}: {name} is 0 or 1; write {name}=0 or {name}=1")
        if not names[name] and operator == "=":
            raise ExploreError(f"{text!r}: {name} is a number; write {name}>{value:g} or {name}<{value:g}")
        rules[name] = operator, value
    return Concept(rules)


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ExploreError(f"{where!r}: {text!r} is not a number") from None


def combine(a: Concept, b: Concept, c: Concept) -> Concept:
    """What A - B + C should show: for each attribute, what is left when B cancels A or C.

    Raises ExploreError where B cancels neither.
    """
    rules = {}
    for name in sorted({*a.rules, *b.rules, *c.rules}):
        plus, minus, other = (concept.rules.get(name) for concept in (a, b, c))
        if plus == minus and other is not None:
            rules[name] = other
        elif other == minus and plus is not None:
            rules[name] = plus
        else:
            raise ExploreError(
                f"A - B + C says nothing of {name}: B must agree with A or with C in it, and all must name it"
            )
    return Concept(rules)
