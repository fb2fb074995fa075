"""`device: auto` takes an accelerator only where all that training needs works on it."""

import subprocess
import sys

import pytest
import torch

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.ranks import devices
from dcgan_dist.ranks.devices import choose_device, lacks
from shards.machine import peak_memory_bytes, usable_cores


def accelerator(monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int = 2) -> None:
    there = torch.device(kind) if kind else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: there)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


def test_a_cpu_does_all_that_training_needs() -> None:
    assert lacks(torch.device("cpu")) is None


def test_without_an_accelerator_auto_is_the_cpu_and_a_name_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accelerator(monkeypatch, None)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device=cuda, but torch sees no accelerator"):
        choose_device("cuda")


def test_ranks_of_a_machine_share_its_gpus_out(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator(monkeypatch, "cuda")
    found = [choose_device("auto", local_rank=rank, ranks=3) for rank in range(3)]
    assert found == [torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cuda", 0)]
    with pytest.raises(ConfigError, match="device=mps, but torch sees the accelerator cuda"):
        choose_device("mps")


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_an_accelerator_that_cannot_do_all_is_passed_by_in_one_line(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accelerator(monkeypatch, kind)  # this torch has no kernels for it, so that the check fails for real
    assert choose_device("auto") == torch.device("cpu")
    told = capsys.readouterr().err
    assert told.startswith(f"device=auto is cpu: {kind} is passed by, ")
    assert told.count("\n") == 1
    with pytest.raises(ConfigError, match=f"device={kind}: .*; choose cpu"):
        choose_device(kind)


def test_an_accelerator_that_can_is_taken_by_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator(monkeypatch, "xpu")
    monkeypatch.setattr(devices, "lacks", lambda _: None)
    assert choose_device("auto") == choose_device("xpu") == torch.device("xpu")
    assert choose_device("auto", ranks=2) == torch.device("cpu")


def test_cores_and_memory_where_linux_calls_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    linux = peak_memory_bytes()
    assert 2**24 < linux < 2**40
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory_bytes() < linux / 500  # bytes there, not KiB
    monkeypatch.delattr("os.sched_getaffinity")
    assert usable_cores() >= 1


def test_usable_cores_are_those_this_process_may_use() -> None:
    code = """
import os
from shards.machine import usable_cores
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
print(usable_cores())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
