"""What a run runs on; two ranks on one card are told by its uuid, whatever each task sees."""

import json
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from dcgan_dist.chaos.local_ranks import LocalRanks
from dcgan_dist.ranks import launcher, machines
from dcgan_dist.ranks.machines import crowded, few_cores, runs_on, seat, shared_gpus
from dcgan_dist.ranks.stopping import Pace
from tests.test_promises import words


def gpu(host: str, uuid: str) -> dict[str, str]:
    return {"host": host, "device": "NVIDIA H100", "gpu": uuid}


CPU = {"host": "a", "device": "CPU", "gpu": ""}


@pytest.mark.parametrize(
    ("seats", "expected"),
    [
        ([gpu("a", "1"), gpu("a", "2")], False),  # a card each, though each task may see only its own
        ([gpu("a", "1"), gpu("a", "1")], True),
        ([gpu("a", "1"), gpu("a", "2"), gpu("b", "3"), gpu("b", "3")], True),
        ([gpu("a", "0"), gpu("b", "0")], False),  # a driver that numbers the cards of each host
        ([CPU, CPU], False),
    ],
)
def test_ranks_are_crowded_where_two_share_a_card(seats: list[dict[str, str]], expected: bool) -> None:
    assert crowded(seats) is expected


def test_the_line_at_the_start_names_devices_nodes_and_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    line = str(runs_on([gpu("a", "1"), gpu("a", "2"), gpu("b", "1"), gpu("b", "2")], "gloo"))
    assert line.startswith(f"4 ranks on 2 nodes: 4 x NVIDIA H100, gloo, torch {torch.__version__}")
    assert "not deterministic" in line
    assert str(runs_on([CPU], "")) == f"1 rank on 1 node: CPU, torch {torch.__version__}"
    # Two ranks on one card are one card.
    shared = runs_on([gpu("a", "1"), gpu("a", "1")], "gloo")
    assert shared.devices == {"NVIDIA H100": 1}
    assert str(shared_gpus(shared)).startswith("2 ranks share 1 GPU, so that gloo carries their sums")
    assert shared_gpus(runs_on([gpu("a", "1"), gpu("b", "1")], "")) is None
    assert shared_gpus(runs_on([CPU, CPU], "gloo")) is None


def test_few_cores_beside_a_gpu_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda", 0)
    monkeypatch.setattr(machines, "usable_cores", lambda: 8)
    assert few_cores(card) is None
    assert few_cores(torch.device("cpu")) is None
    monkeypatch.setattr(machines, "usable_cores", lambda: 1)
    assert str(few_cores(card)).startswith("a rank has 1 CPU cores")
    monkeypatch.setattr(machines, "usable_cores", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert launcher.sharing_cores() == 1  # under Slurm each has its own
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert "--cpus-per-task" in str(few_cores(card, sharing=launcher.sharing_cores()))


@pytest.mark.parametrize(
    ("usable", "ranks", "told", "expected"),
    [
        (16, 4, None, 4),
        (16, 1, None, 16),
        (16, 32, None, 1),
        (16, 4, "16", 16),  # somebody said so
        (8, 4, None, 8),  # bound to some of the cores: they are its own
    ],
)
def test_ranks_share_the_cores_out_where_nobody_did(
    monkeypatch: pytest.MonkeyPatch, usable: int, ranks: int, told: str | None, expected: int
) -> None:
    monkeypatch.setattr(machines, "usable_cores", lambda: usable)
    monkeypatch.setattr(machines.os, "cpu_count", lambda: 16)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    threads = [usable]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    machines.share_cores(ranks)
    assert threads[-1] == expected


@pytest.mark.parametrize(("cores", "expected"), [(2, True), (16, False)])
def test_a_rank_of_few_cores_sleeps_as_it_waits_for_its_gpu(
    monkeypatch: pytest.MonkeyPatch, cores: int, expected: bool
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(machines, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "Event", lambda device, *, blocking: asked.append(blocking) or MagicMock())
    Pace(torch.device("cuda", 0)).wait()
    assert asked == [expected]


def test_the_facts_are_in_the_manifest_and_told_at_the_start(rooms16: str, tmp_path: Path) -> None:
    with LocalRanks(words(rooms16, tmp_path / "run", "--train.steps=2"), 2) as ranks:
        assert ranks.wait(60) == [0, 0]
        assert ranks.told(0).startswith(f"2 ranks on 1 node: CPU, gloo, torch {torch.__version__}\n")
    manifest = json.loads(next((tmp_path / "run" / "checkpoints").glob("*.json")).read_text())
    about = manifest["facts"]["runs_on"] if "facts" in manifest else manifest["runs_on"]
    assert (about["ranks"], about["nodes"], about["backend"]) == (2, 1, "gloo")
    assert about["torch"] == torch.__version__
    assert about["devices"] == {"CPU": 1}


def test_the_seat_of_a_cpu_has_no_gpu() -> None:
    assert seat(torch.device("cpu")) | {"host": "a"} == CPU
