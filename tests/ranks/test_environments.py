"""What launchers and schedulers show a process -> its GPU and its backend, with GPUs that are not there."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import torch.distributed as dist

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.ranks import determinism, world
from dcgan_dist.ranks.rendezvous import Met

BASE = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
TORCHRUN = BASE | {"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"}
EIGHT = [str(gpu) for gpu in range(8)]


class Chosen(Exception):  # noqa: N818
    """The group would be made now."""


def choose(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    visible: list[str],
    others: dict[int, str],
    device: str = "auto",
) -> tuple[str, str, str | None]:
    """Device, backend and device_id of a process that sees GPUs with the uuids `visible`, among `others`,
    each with the uuid of its own."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(determinism, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(world, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda") if visible else None
    )
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: len(visible))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda device: SimpleNamespace(name="NVIDIA H100", uuid=visible[device.index]),
    )
    monkeypatch.setattr(world, "Rollcall", MagicMock())
    monkeypatch.setenv("TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "1000")  # restored, for `join` may set it
    seen: dict[str, Any] = {}

    def meet(place: Any, facts: Any, *, seconds: float, seat: Any) -> Met:
        seen["device"] = facts["device"]
        seen["seat"] = seat
        there = [{**seat, "gpu": others.get(rank, "")} for rank in range(place.ranks)]
        there[place.rank] = dict(seat)
        return Met(MagicMock(), {}, there)

    def init(backend: str, **more: Any) -> None:
        seen["backend"], seen["device_id"] = backend, more["device_id"]
        raise Chosen

    monkeypatch.setattr(world, "meet", meet)
    monkeypatch.setattr(dist, "init_process_group", init)
    with pytest.raises(Chosen), world.join(device=device, timeout_seconds=1):
        pass
    named = seen["device_id"]
    return seen["seat"]["gpu"] or seen["device"], seen["backend"], None if named is None else str(named)


ALL = {rank: str(rank) for rank in range(8)}


@pytest.mark.parametrize(
    ("variables", "visible", "others", "expected"),
    [
        pytest.param(TORCHRUN, EIGHT, ALL, ("3", "nccl", "cuda:3"), id="all-visible"),
        pytest.param(TORCHRUN, ["3"], ALL, ("3", "nccl", "cuda:0"), id="one-bound-to-each-task"),
        pytest.param(
            TORCHRUN | {"LOCAL_RANK": "6", "RANK": "6"}, EIGHT[4:], ALL, ("6", "nccl", "cuda:2"), id="closest"
        ),
        pytest.param(
            TORCHRUN, EIGHT[::2], ALL | {1: "6"}, ("6", "gloo", None), id="closest-and-dealt-out-in-turn"
        ),
        pytest.param(
            TORCHRUN, EIGHT[:2], {rank: str(rank % 2) for rank in range(8)}, ("1", "gloo", None), id="8-on-2"
        ),
        pytest.param(
            BASE | {"LOCAL_RANK": "3"}, EIGHT, ALL, ("3", "nccl", "cuda:3"), id="no-LOCAL_WORLD_SIZE"
        ),
        pytest.param(BASE, EIGHT, {1: "0"}, ("0", "gloo", None), id="no-LOCAL_RANK"),
        pytest.param(TORCHRUN, [], {}, ("cpu", "gloo", None), id="no-GPU"),
    ],
)
def test_device_and_backend(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    visible: list[str],
    others: dict[int, str],
    expected: tuple[str, str, str | None],
) -> None:
    assert choose(monkeypatch, variables, visible, others) == expected


def test_the_cpu_is_taken_beside_gpus_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(monkeypatch, TORCHRUN, EIGHT, {}, "cpu") == ("cpu", "gloo", None)


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="device=cuda, but torch sees no accelerator"):
        choose(monkeypatch, TORCHRUN, [], {}, "cuda")
