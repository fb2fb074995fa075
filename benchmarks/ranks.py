"""Contenders of several ranks: processes that meet over gloo and take turns with others.

A contender is made on every rank by `make(here, *args)`; all ranks run together, and rank 0 tells the items.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from dcgan_dist.ranks import local, world

Run = Callable[[], int]


@contextmanager
def together(
    ranks: int, make: Callable[..., Run], *args: Any, cores: Sequence[Sequence[int]] | None = None
) -> Iterator[Run]:
    """`make(here, *args)` on each of `ranks` processes; `cores[rank]` are those it may use."""
    context = multiprocessing.get_context("spawn")
    port = local.free_port()
    ends, workers = [], []
    for rank in range(ranks):
        here, there = context.Pipe()
        settings = (rank, ranks, port, cores[rank] if cores else None)
        worker = context.Process(target=_serve, args=(there, settings, make, args))
        worker.start()
        there.close()
        ends.append(here)
        workers.append(worker)

    def run() -> int:
        for end in ends:
            end.send(True)
        items = [end.recv() for end in ends]
        return int(items[0])

    try:
        yield run
    finally:
        for end in ends:
            end.close()
        for worker in workers:
            worker.join(timeout=20)
            worker.kill()


def _serve(
    pipe: Connection,
    settings: tuple[int, int, int, Sequence[int] | None],
    make: Callable[..., Run],
    args: Any,
) -> None:
    rank, ranks, port, cores = settings
    if cores:
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores) if cores else 1)
    os.environ |= local.environment(rank, ranks, port=port)
    with world.join(device="cpu", timeout_seconds=600) as here:
        run = make(here, *args)
        with contextlib.suppress(EOFError):
            while pipe.recv():
                pipe.send(run())
