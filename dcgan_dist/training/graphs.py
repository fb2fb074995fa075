"""Updates as CUDA graphs (`train.graphs`): all launches of a step at once, on a host too slow for them.

A graph reads the same memory at every replay: the batch, as uint8, and the key of the noise. What it has read
it says: the key and the sum of the batch's words, which the host holds against what it fed. Before the first
replay that counts, two updates are done as ever and two by replay, from the same weights and moments: their
bits must be equal, or the run ends. Kept out: what an update is.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Found = TypeVar("Found")
Work = Callable[[], Found]
Recorded = tuple[Callable[[], None], Found]
"""How to do it again, and where its answers are each time."""
AHEAD_STEPS = 3
"""A GPU is never more than a step behind its rank (`stopping.Pace`): of so many turns the first is over."""


class StaleInputError(RuntimeError):
    """A graph has read something else than it was fed; nothing it learned can be relied on."""


class ReplayError(RuntimeError):
    """Replayed updates do not have the bits of those done as ever."""


def cuda_graph(work: Work[Found]) -> Recorded[Found]:
    """As a CUDA graph, with memory of its own; nothing is computed yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()
    return graph.replay, found


class Inputs:
    """What graphs read, on the device: `batch`, uint8 of that shape, and `key`, () int64."""

    def __init__(self, shape: Sequence[int], device: torch.device) -> None:
        pinned = device.type == "cuda"
        self.batch = torch.zeros(tuple(shape), dtype=torch.uint8, device=device)
        self.key = torch.zeros((), dtype=torch.int64, device=device)
        turns = range(AHEAD_STEPS)
        self._staged = [torch.zeros(tuple(shape), dtype=torch.uint8, pin_memory=pinned) for _ in turns]
        self._told = [torch.zeros(2, dtype=torch.int64, pin_memory=pinned) for _ in turns]
        self._fed: list[tuple[int, int, int] | None] = [None] * AHEAD_STEPS
        self._done = [torch.Event(device) if pinned else None for _ in turns]
        self._turn = 0

    def feed(self, step: int, key: int, batch: NDArray[np.uint8] | None) -> None:
        """Before the replay of `step`. Raises StaleInputError for one some steps ago."""
        self.check(self._turn)
        total = 0
        if batch is not None:
            self._staged[self._turn].copy_(torch.from_numpy(batch))
            self.batch.copy_(self._staged[self._turn], non_blocking=True)
            total = int(_words(torch.from_numpy(batch)).sum())
        self.key.fill_(key)
        self._fed[self._turn] = (step, key, total)

    def read(self, *, batch: bool) -> Tensor:
        """Inside a graph: what it has read, (2,) int64."""
        total = _words(self.batch).sum() if batch else torch.zeros_like(self.key)
        return torch.stack((self.key, total))

    def hear(self, told: Tensor) -> None:
        """After the replay: what it said comes to the host, to be looked at some steps later."""
        self._told[self._turn].copy_(told, non_blocking=True)
        event = self._done[self._turn]
        if event is not None:
            event.record()
        self._turn = (self._turn + 1) % AHEAD_STEPS

    def check(self, turn: int) -> None:
        """Hold what a graph said in `turn` against what it was fed. Raises StaleInputError."""
        fed, self._fed[turn] = self._fed[turn], None
        if fed is None:
            return
        event = self._done[turn]
        if event is not None:
            event.synchronize()
        step, key, total = fed
        if self._told[turn].tolist() != [key, total]:
            raise StaleInputError(
                f"step {step}: the graph has read other pictures or noise than it was fed; "
                "go on from the newest checkpoint with train.graphs=false"
            )

    def check_all(self) -> None:
        """Before anything is saved. Raises StaleInputError."""
        for turn in range(AHEAD_STEPS):
            self.check(turn)


def _words(pixels: Tensor) -> Tensor:
    flat = pixels.reshape(-1)
    return flat.view(torch.int64) if flat.numel() % 8 == 0 else flat.to(torch.int64)


class Graphs(Generic[Found]):
    """Each kind of update as a graph, recorded when it is first done.

    `work` does an update of a kind from `inputs`; `state` is all that updates change, by name, and what is
    not there before the first is zeros after it (Adam's moments); `prints` are numbers for its bits.
    """

    def __init__(
        self,
        inputs: Inputs,
        work: Callable[[Hashable], Found],
        *,
        state: Callable[[], Mapping[str, Tensor]],
        prints: Callable[[], Tensor],
    ) -> None:
        self.inputs, self._work = inputs, work
        self._state, self._prints = state, prints
        self._recorded: dict[Hashable, Recorded[tuple[Found, Tensor]]] = {}

    def update(self, kind: Hashable, step: int, key: int, batch: NDArray[np.uint8] | None) -> Found:
        """Update `kind` on `batch` (n, S, S, 3) and noise of `key`.

        Raises StaleInputError and ReplayError.
        """
        self.inputs.feed(step, key, batch)
        if kind not in self._recorded:
            self._recorded[kind] = self._prove(kind, reads_batch=batch is not None)
        replay, (found, told) = self._recorded[kind]
        replay()
        self.inputs.hear(told)
        return found

    @torch.no_grad()
    def _prove(self, kind: Hashable, *, reads_batch: bool) -> Recorded[tuple[Found, Tensor]]:
        """Record it, hold two replays against two updates done as ever, and put everything back."""
        before = {name: value.clone() for name, value in self._state().items()}

        def put_back() -> None:
            for name, value in self._state().items():
                value.copy_(before[name] if name in before else torch.zeros_like(value))

        def whole() -> tuple[Found, Tensor]:
            with torch.enable_grad():
                found = self._work(kind)
            return found, self.inputs.read(batch=reads_batch)

        with _aside(self.inputs.key.device):
            whole()
            whole()
            expected = self._prints()
            put_back()
        replay, found = cuda_graph(whole)
        replay()
        replay()
        same = torch.equal(self._prints(), expected)
        put_back()
        if not same:
            raise ReplayError(
                "two updates replayed as a CUDA graph differ from two done as ever; set train.graphs=false"
            )
        return replay, found


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """A stream of its own: what is recorded must have been done on another than the usual one before."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
