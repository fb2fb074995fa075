"""Run a function on N gloo processes of this machine, with a limit on the time it may take."""

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any

import torch

from dcgan_dist.ranks.local import environment, free_port

_context = multiprocessing.get_context("forkserver")
# What a first optimiser imports, and what training does: seconds for each process otherwise.
_context.set_forkserver_preload(
    ["torch", "torch.distributed", "torch._dynamo", "dcgan_dist.train", "dcgan_dist.training.trainer"]
)


def run_ranks(function: Callable[..., Any], ranks: int, *args: Any, timeout: float = 120) -> list[Any]:
    """What `function(*args)` returns, by rank. Raises AssertionError with a rank's traceback."""
    port = free_port()
    answers: Queue[tuple[int, Any, str]] = _context.Queue()
    workers = [
        _context.Process(
            target=_work, args=(answers, rank, ranks, port, dict(os.environ), function, args), daemon=True
        )
        for rank in range(ranks)
    ]
    for worker in workers:
        worker.start()
    try:
        results: dict[int, Any] = {}
        while len(results) < ranks:
            rank, result, error = answers.get(timeout=timeout)
            assert not error, f"rank {rank} of {ranks} failed:\n{error}"
            results[rank] = pickle.loads(result)
        return [results[rank] for rank in range(ranks)]
    finally:
        for worker in workers:
            worker.join(timeout=5)
            worker.kill()


def _work(
    answers: "Queue[tuple[int, Any, str]]",
    rank: int,
    ranks: int,
    port: int,
    variables: dict[str, str],
    function: Callable[..., Any],
    args: Any,
) -> None:
    # The server that ranks are forked from has the environment of its own start.
    os.environ |= variables | environment(rank, ranks, port=port)
    torch.set_num_threads(1)
    try:
        # Pickled here: the queue's own way with tensors needs the sender to live on.
        answers.put((rank, pickle.dumps(function(*args)), ""))
    except BaseException:
        answers.put((rank, b"", traceback.format_exc()))
