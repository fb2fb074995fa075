"""GPUs are told to repeat themselves before they compute anything and before ranks meet, in this order."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import torch.distributed as dist

from dcgan_dist.ranks import determinism, world
from dcgan_dist.ranks.determinism import lenient, prepare
from dcgan_dist.ranks.rendezvous import Place


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU for the test, and the switches of this process as they were afterwards."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("CUBLAS_WORKSPACE_CONFIG", "NCCL_LAUNCH_ORDER_IMPLICIT"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False


def mode() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def test_flags_are_set_before_a_device_is_chosen_and_the_group_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, Any]] = []

    def note(name: str, answer: Any) -> Any:
        def called(*_: Any, **__: Any) -> Any:
            seen.append((name, (*mode(), os.environ.get("CUBLAS_WORKSPACE_CONFIG"))))
            assert os.environ["NCCL_LAUNCH_ORDER_IMPLICIT"] == "1"
            return answer

        return called

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(world, "choose_device", note("device", torch.device("cuda", 0)))
    monkeypatch.setattr(torch.cuda, "set_device", note("set_device", None))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        world.launcher, "place", lambda: Place(rank=0, ranks=1, host="h", port=1, local=True, agent=False)
    )
    monkeypatch.setattr(world, "meet", note("meet", MagicMock()))
    monkeypatch.setattr(world, "Rollcall", MagicMock())
    monkeypatch.setattr(world, "seat", MagicMock())
    monkeypatch.setattr(world, "runs_on", MagicMock())
    monkeypatch.setattr(dist, "init_process_group", note("group", None))
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(world.World, "agree", lambda *_: 0)
    with world.join(device="auto", timeout_seconds=1, determinism="error"):
        pass
    assert [name for name, _ in seen if name in ("device", "set_device", "group")] == [
        "device",
        "set_device",
        "group",
    ]
    assert {told for _, told in seen} == {(True, False, ":4096:8")}


@pytest.mark.parametrize(
    ("wanted", "expected"), [("error", (True, False)), ("warn", (True, True)), ("default", (False, False))]
)
def test_what_is_asked_for(wanted: determinism.Determinism, expected: tuple[bool, bool]) -> None:
    prepare(wanted, allow_tf32=False)
    assert mode() == expected
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == (wanted != "default")


@pytest.mark.parametrize("allow_tf32", [False, True])
def test_float32_is_float32_unless_asked_otherwise(allow_tf32: bool) -> None:
    prepare("error", allow_tf32=allow_tf32)
    assert torch.backends.cudnn.allow_tf32 is allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 is allow_tf32
    assert torch.get_float32_matmul_precision() == ("high" if allow_tf32 else "highest")


def test_a_users_own_workspace_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    prepare("error", allow_tf32=False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_without_a_gpu_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    prepare("error", allow_tf32=False)
    assert mode() == (False, False)


@pytest.mark.parametrize("wanted", ["error", "warn", "default"])
def test_scores_may_take_kernels_that_the_step_may_not(wanted: determinism.Determinism) -> None:
    prepare(wanted, allow_tf32=False)
    before = mode()
    with suppress(ZeroDivisionError), lenient():
        assert mode() == (before[0], before[0])
        raise ZeroDivisionError
    assert mode() == before
