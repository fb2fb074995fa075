"""What the meter tells of all ranks."""

from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

from dcgan_dist.training.meter import Meter


def read(device: str) -> tuple[dict[str, float], dict[str, list[float]]]:
    """One reading on a rank whose neighbour has twice of everything."""
    feed, here = MagicMock(waited_seconds=0.0, replaced=3), MagicMock(device=torch.device(device))
    feed.fetch.cache, feed.fetch.hedges = None, 1

    def gather(values: Tensor) -> Tensor:
        return torch.stack([values, values * 2])

    here.gather = gather
    meter = Meter(feed, here, batch_images=8)
    meter.tick()
    return meter.read(1), meter.by_rank


def test_memory_of_gpus_is_that_of_the_fullest(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: asked.append(device) or 5e9)
    told, by_rank = read("cuda:1")
    assert asked == [torch.device("cuda", 1)]
    assert told["memory/gpu_bytes"] == 1e10
    assert by_rank["memory/gpu_bytes"] == [5e9, 1e10]
    assert told["data/replaced"] == 9  # what is counted is summed


def test_on_cpus_there_is_no_memory_of_gpus() -> None:
    told, by_rank = read("cpu")
    assert "memory/gpu_bytes" not in told
    assert told["memory/process_bytes"] == max(by_rank["memory/process_bytes"])
