"""A copy of all that training goes on from, which costs a GPU no wait and its thread a few launches.

On a GPU everything is copied there first, in the plain layout of a file; from there it goes to page-locked
memory of the CPU on a stream of its own, beside the next steps. Kept out: what becomes of the copy.
"""

from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from dcgan_dist.gan.step import Player

Parts = dict[str, dict[str, Tensor]]
"""By part of a checkpoint (g, d, g_optim, d_optim, ema), its tensors by name, contiguous on the CPU."""


@dataclass(frozen=True)
class Snapshot:
    """What training went on from at one step; training may go on at once."""

    _parts: Parts = field(default_factory=dict)
    _arrived: torch.cuda.Event | None = None

    def parts(self) -> Parts:
        """The copy, once all of it is on the CPU; any thread may wait for it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._parts


def snapshot(g: Player[nn.Module], d: Player[nn.Module], ema: nn.Module | None) -> Snapshot:
    """A copy of all state of both players and of G's mean."""
    parts = {"g": g.bare.state_dict(), "d": d.bare.state_dict()}
    parts |= {"g_optim": optim_tensors(g.optim), "d_optim": optim_tensors(d.optim)}
    if ema is not None:
        parts["ema"] = ema.state_dict()
    device = next(g.bare.parameters()).device
    if device.type == "cuda":
        try:
            return _beside_training(parts, device)
        except torch.cuda.OutOfMemoryError:
            pass  # no room for a copy there: then the GPU waits
    return Snapshot({part: {k: _copy(v) for k, v in tensors.items()} for part, tensors in parts.items()})


def optim_tensors(optim: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's state by number of weight and kind."""
    state = optim.state_dict()["state"]
    return {f"{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}


def _copy(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.device.type == "cpu":
        return tensor.clone(memory_format=torch.contiguous_format)
    return tensor.contiguous().to("cpu")  # in this order: a GPU turns it round faster


def _beside_training(parts: Parts, device: torch.device) -> Snapshot:
    copies = {
        part: {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        for part, tensors in parts.items()
    }
    stream = _stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        pinned = {part: {k: _to_pinned(v) for k, v in tensors.items()} for part, tensors in copies.items()}
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(stream)
    for tensors in copies.values():
        for copy in tensors.values():
            if copy.is_cuda:
                copy.record_stream(stream)
    return Snapshot(pinned, arrived)


def _to_pinned(tensor: Tensor) -> Tensor:
    """Into memory that torch keeps for the next snapshot when this one is written."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
