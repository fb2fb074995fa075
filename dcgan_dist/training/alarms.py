"""A watch over training: what is no longer a number ends the run, what looks like collapse is told once.

Pure functions of metrics, pictures and weights, and a small state that begins anew with each start. Kept out:
where an alarm is shown, and any change to the training itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shards.errors import ToldError

D_WON_LOSS = 0.02
"""D's summed loss; 2 ln 2 = 1.39 where it can tell nothing, G's gradient vanishes as it nears 0."""
G_WON_LOSS = 0.02
"""G's loss; ln 2 = 0.69 where D can tell nothing."""
READINGS = 5
"""In a row, before collapse is told; a single one may be chance."""
DIVERSITY_SHARE = 0.5
"""Of the greatest diversity seen."""
STEADY_SHARE = 0.05
"""A filter whose response varies with z by less than this share of its variance draws one mode."""
TURNING = -0.5
"""Cosine between two successive changes of a mode: it goes back where it came from."""


class DivergedError(ToldError):
    """A loss or a weight is no longer a number, or the ranks no longer hold the same weights."""


@dataclass
class Alarms:
    """What was seen before; each kind of alarm is told once."""

    _lost: dict[str, int] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _best_diversity: float = 0.0
    _modes: dict[str, list[Tensor]] = field(default_factory=dict)

    def of_losses(self, metrics: Mapping[str, float]) -> list[str]:
        """Whether one network has won for good: `READINGS` metrics in a row."""
        texts = {
            "loss/d": ("D tells all pictures apart", D_WON_LOSS, "G learns nothing from it; lower optim.lr"),
            "loss/g": ("G fools D on all pictures", G_WON_LOSS, "D has collapsed; lower optim.lr"),
        }
        found = []
        for name, (what, limit, then) in texts.items():
            if name in metrics and self._count(name, metrics[name] < limit):
                found.append((name, f"{what}: {name} under {limit} in {READINGS} readings; {then}"))
        return self._once(found)

    def of_diversity(self, relative: float) -> list[str]:
        """Whether samples have become alike; `relative` is their diversity over that of real pictures."""
        self._best_diversity = max(self._best_diversity, relative)
        fell = relative < DIVERSITY_SHARE * self._best_diversity
        if not self._count("diversity", fell):
            return []
        text = (
            f"samples become alike: diversity {relative:.2f} of real pictures', {self._best_diversity:.2f} "
            "before; G may have collapsed, an earlier checkpoint may be better"
        )
        return self._once([("diversity", text)])

    def of_filters(self, responses: Mapping[str, Tensor]) -> list[str]:
        """The paper's remaining instability (section 7): filters that collapse to one oscillating mode.

        `responses` are those of G's layers to the same z each time, (n, channels, h, w) or (n, features).
        """
        found = []
        for layer, response in responses.items():
            mode, steady = modes(response)
            before = [*self._modes.get(layer, []), mode][-3:]
            self._modes[layer] = before
            bad = (steady & turning(before)).nonzero().flatten().tolist() if len(before) == 3 else []
            if self._count(f"filters {layer}", bool(bad)):
                text = f"{len(bad)} filters of g.{layer} draw one oscillating mode, whatever z is: {bad[:8]}"
                found.append((f"filters {layer}", f"{text}; an earlier checkpoint may be better"))
        return self._once(found)

    def _count(self, kind: str, bad: bool) -> bool:
        """Whether this was the `READINGS`th bad reading in a row, or a later one."""
        self._lost[kind] = self._lost.get(kind, 0) + 1 if bad else 0
        return self._lost[kind] >= READINGS

    def _once(self, found: list[tuple[str, str]]) -> list[str]:
        new = [(kind, text) for kind, text in found if kind not in self._told]
        self._told |= {kind for kind, _ in new}
        return [text for _, text in new]


def diversity(images: NDArray[np.uint8]) -> float:
    """Mean squared distance of two pictures, per value in [0, 1]; images (n, S, S, 3).

    Equal to twice the unbiased variance over pictures, so that no pair has to be looked at.
    """
    return float(2 * (images / np.float32(255)).var(axis=0, ddof=1).mean())


def modes(response: Tensor) -> tuple[Tensor, Tensor]:
    """Of each filter, what it draws on average, (channels, h * w), and whether that is all it ever draws."""
    flat = response.detach().float().reshape(len(response), response.shape[1], -1)
    mode = flat.mean(0)
    of_z = flat.var(0, correction=0).mean(1)
    whole = flat.transpose(0, 1).reshape(flat.shape[1], -1).var(1, correction=0)
    alive = whole > 1e-12  # a filter that draws nothing at all is another matter
    return mode.cpu(), (alive & (of_z < STEADY_SHARE * whole)).cpu()


def turning(before: list[Tensor]) -> Tensor:
    """Of each filter, whether its mode goes back where it came from; three modes, (channels, h * w) each."""
    first, second = before[1] - before[0], before[2] - before[1]
    return nn.functional.cosine_similarity(first, second, dim=1) < TURNING


@torch.no_grad()
def check_same(fingerprints: Tensor, names: tuple[str, ...], *, step: int) -> None:
    """Raises DivergedError that names rank and network; fingerprints (ranks, networks)."""
    usual = fingerprints.mode(dim=0).values
    for name, found, wanted in zip(names, fingerprints.T.tolist(), usual.tolist(), strict=True):
        odd = [rank for rank, print_ in enumerate(found) if print_ != wanted]
        if odd:
            who = f"rank {odd[0]}" if len(found) > 2 else "rank 0 or 1"
            raise DivergedError(
                f"step {step}: the weights of {name} on {who} are not those of the others; "
                "its memory or its device may be faulty"
            )
