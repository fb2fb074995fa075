"""Where two runs ended, compared: losses of all steps, and every tensor."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcgan_dist.checkpoints import checkpoint

ROUNDING = 1e-6
"""Of losses and weights, between different numbers of ranks in float64."""


def differences(one: Path, other: Path, *, exact: bool) -> Iterator[str]:
    """What differs between the ends of two runs: losses of all steps, then every tensor."""
    name = other.name
    losses = [_losses(run) for run in (one, other)]
    if losses[0].keys() != losses[1].keys():
        yield f"{name}: metrics of other steps"
    for step in sorted(losses[0].keys() & losses[1].keys()):
        pairs = [
            (losses[0][step][key], losses[1][step][key])
            for key in losses[0][step].keys() & losses[1][step].keys()
        ]
        if not all(
            a == b if exact else math.isclose(a, b, rel_tol=ROUNDING, abs_tol=ROUNDING) for a, b in pairs
        ):
            yield f"{name}: losses of step {step} differ"
            break
    tensors = [_tensors(run) for run in (one, other)]
    if tensors[0].keys() != tensors[1].keys():
        yield f"{name}: other tensors"
    for key in sorted(tensors[0].keys() & tensors[1].keys()):
        a, b = tensors[0][key], tensors[1][key]
        if not (torch.equal(a, b) if exact else torch.allclose(a, b, rtol=ROUNDING, atol=ROUNDING)):
            yield f"{name}: {key} differs by {float((a - b).abs().max()):.2g}"


def _losses(run: Path) -> dict[int, dict[str, float]]:
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    found: dict[int, dict[str, float]] = {}
    for row in rows:  # several lines may tell of one step
        told = {name: value for name, value in row.items() if name.startswith(("loss/", "d/"))}
        found.setdefault(row["step"], {}).update(told)
    return found


def _tensors(run: Path) -> dict[str, Tensor]:
    found = checkpoint.read_newest(str(run / "checkpoints"))
    assert found is not None
    return {f"{part}.{name}": value for part, tensors in found[1].items() for name, value in tensors.items()}
