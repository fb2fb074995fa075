"""The lanes of one rank, block by block: what each step takes of each lane, whatever is read of it.

A damaged block is replaced by the next whole one, a function of the position, so that every run replaces
alike. Storage that does not answer is no damage: its error comes through. Kept out: decoding, and when.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from dcgan_dist.stream.fetch import Data, Fetch
from dcgan_dist.stream.plan import Plan, Span
from shards.dataset.reader import Blocks
from shards.errors import DamagedError
from shards.printable import printable
from shards.redact import redact
from shards.tars.records import Buffer

SUBSTITUTES = 8
"""How many blocks to try in place of a damaged one."""

log = logging.getLogger("dcgan_dist")
Opened = TypeVar("Opened")


@dataclass(slots=True)
class _Open(Generic[Opened]):
    """A lane's block, and what the steps to come take of it."""

    opened: Opened
    samples: list[int]
    stands_in: bool


class Lanes(Generic[Opened]):
    """What the steps [`first_step`, `stop_step`) take of `lanes`, rows of the global batch.

    A lane's block is what `open_block(block, its bytes)` makes of it. One thread at a time may ask for a
    row; several may ask for several.
    """

    def __init__(
        self,
        blocks: Blocks,
        plan: Plan,
        lanes: range,
        fetch: Fetch,
        open_block: Callable[[int, Buffer], Opened],
        *,
        first_step: int,
        stop_step: int | None,
    ) -> None:
        self.blocks, self.plan, self.lanes = blocks, plan, lanes
        self._first_step, self._stop_step = first_step, stop_step
        self._spans = fetch.follow(self._all_spans(first_step))
        self._coming: list[deque[tuple[int, Span, Data]]] = [deque() for _ in lanes]
        self._open: dict[int, _Open[Opened]] = {}
        self._open_block = open_block
        self._dealt = first_step - 1  # every span that begins by this step is in `_coming`
        self._upcoming: tuple[int, Span, Data] | None = None  # the first that is not
        self._taking = threading.Lock()
        self._named: set[str] = set()
        self._under_way: dict[int, tuple[int, Span]] = {}

    def _all_spans(self, first_step: int) -> Iterator[tuple[int, Span]]:
        """Every span from `first_step` on, over all epochs, with the step at which its epoch began."""
        epoch, first = divmod(first_step, self.plan.steps_per_epoch)
        while True:
            began = epoch * self.plan.steps_per_epoch
            for span in self.plan.epoch(epoch).spans(self.lanes, first_step=first):
                if self._stop_step is not None and began + span.first >= self._stop_step:
                    return
                yield began, span
            epoch, first = epoch + 1, 0

    def deal(self, step: int) -> None:
        """Hand out the spans that begin by `step`; call before any row of that step is asked for."""
        with self._taking:
            if step <= self._dealt:
                return
            if self._dealt < self._first_step:
                self._upcoming = next(self._spans, None)
            while self._upcoming and self._upcoming[0] + self._upcoming[1].first <= step:
                self._coming[self._upcoming[1].lane - self.lanes.start].append(self._upcoming)
                self._upcoming = next(self._spans, None)
            self._dealt = step

    def take(self, row: int, steps: int) -> list[tuple[Opened, list[int], bool]]:
        """What the next `steps` steps take of one lane, in parts that come from one block each: what
        `open_block` made of it, the numbers in it among those kept, and whether it stands in for another."""
        parts, now = [], self._open.get(row)
        while steps:
            if now is None or not now.samples:
                now = self._open[row] = self._next_block(row)
            taken, now.samples = now.samples[:steps], now.samples[steps:]
            parts.append((now.opened, taken, now.stands_in))
            steps -= len(taken)
        return parts

    def _next_block(self, row: int) -> _Open[Opened]:
        at, span, data = self._coming[row].popleft()
        self._under_way[threading.get_ident()] = at, span
        block, found, bad = self._whole_block(span, data)
        self.tell(bad)
        opened = self._open_block(block, found)
        del self._under_way[threading.get_ident()]
        samples = span.samples if block == span.block else span.samples % self.plan.counts[block]
        return _Open(opened, samples.tolist(), block != span.block)

    def late(self, step: int) -> str | None:
        """What is waited for by now though `step` needs it, in words."""
        late = [span for at, span in list(self._under_way.values()) if at + span.first <= step]
        if not late:
            return None
        place = self.blocks.place(min(late).block)
        return f"bytes {place.start} to {place.stop} of {redact(self.blocks.shard_url(place.shard))}"

    def tell(self, bad: list[str]) -> None:
        """Name what was replaced, once."""
        with self._taking:
            fresh = [line for line in bad if line not in self._named]
            self._named.update(fresh)
        for line in fresh:
            log.warning("%s: %s", redact(self.blocks.url), printable(redact(line)))

    def _whole_block(self, span: Span, data: Data) -> tuple[int, Buffer, list[str]]:
        """The span's block, or the next whole one, with its bytes, and a line for each sample replaced."""
        try:
            return span.block, data(), []
        except DamagedError as error:
            first = error
        total = len(self.plan.counts)
        for ahead in range(1, min(total, SUBSTITUTES)):
            block = (span.block + ahead) % total
            if not self.plan.counts[block]:
                continue
            try:
                found = self.blocks.read(block)
            except DamagedError:
                continue
            return (
                block,
                found,
                [
                    f"{self.blocks.sample_name(span.block, position)} is in a damaged block ({first})"
                    for position in self.blocks.kept(span.block)[span.samples].tolist()
                ],
            )
        raise first
